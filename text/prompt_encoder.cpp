#include "text/prompt_encoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>

#include "core/content_hash.h"
#include "core/error.h"
#include "core/logging.h"
#include "nn/layers.h"

namespace prefusion::text {

PromptEncoder PromptEncoder::load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                                  const PromptEncoderOptions& options) {
  check_input(std::filesystem::is_directory(model_dir), model_dir.string(),
              ": no such folder; expected a diffusers model");
  auto model = load_clip_text_model(model_dir / "text_encoder", dtype, device);
  auto tokenizer = ClipTokenizer::load(model_dir / "tokenizer", model->config().max_position_embeddings);
  const ClipTextConfig& config = model->config();
  check_input(tokenizer.num_ids() <= config.vocab_size, model_dir.string(), ": the tokenizer has ids up to ",
              tokenizer.num_ids() - 1, ", the text encoder's vocab_size is ", config.vocab_size);
  check_input(tokenizer.model_max_length() <= config.max_position_embeddings, model_dir.string(),
              ": the tokenizer's model_max_length is ", tokenizer.model_max_length(),
              ", the text encoder's max_position_embeddings is ", config.max_position_embeddings);
  return PromptEncoder(std::move(tokenizer), std::move(model), options);
}

PromptEncoder::PromptEncoder(ClipTokenizer tokenizer, std::shared_ptr<ClipTextModel> model,
                             const PromptEncoderOptions& options)
    : tokenizer_(std::move(tokenizer)), model_(std::move(model)), options_(options) {
  check_usage(options.clip_skip >= 0 && options.clip_skip <= model_->config().num_hidden_layers, "clip skip ",
              options.clip_skip, " is out of range: the text encoder has ", model_->config().num_hidden_layers,
              " layers");
}

at::Tensor PromptEncoder::encode(const std::vector<std::string>& prompts) {
  at::NoGradGuard no_grad;
  for (const std::string& prompt : prompts) warn_if_truncated(prompt);
  const at::Device device = model_->parameters().front().device();
  const at::Tensor input_ids = tokenizer_.tokenize_batch(prompts).to(device);  // [B, L]
  at::Tensor attention_mask;
  if (model_->config().use_attention_mask) attention_mask = tokenizer_.attention_mask_batch(prompts).to(device);
  const ClipTextOutput output = model_->forward(input_ids, attention_mask);
  if (options_.clip_skip == 0) return output.last_hidden_state;
  const size_t layer = output.hidden_states.size() - 1 - static_cast<size_t>(options_.clip_skip);
  return model_->final_layer_norm(output.hidden_states[layer]);
}

int64_t PromptEncoder::truncated_tokens(const std::string& prompt) const {
  return static_cast<int64_t>(tokenizer_.cut_off(tokenizer_.encode(prompt)).size());
}

void PromptEncoder::warn_if_truncated(const std::string& prompt) {
  if (warned_.contains(prompt)) return;
  const std::vector<int64_t> cut = tokenizer_.cut_off(tokenizer_.encode(prompt));
  if (cut.empty()) return;
  // A bound on memory over millions of prompts; past it a warning may repeat.
  constexpr size_t kMaxRemembered = 10000;
  if (warned_.size() >= kMaxRemembered) warned_.clear();
  warned_.insert(prompt);
  log_warn("prompt is longer than ", tokenizer_.model_max_length(), " tokens; cut off: '", tokenizer_.decode(cut), "'");
}

std::string PromptEncoder::content_key() const {
  if (content_key_.empty()) content_key_ = compute_content_key();
  return content_key_;
}

std::string PromptEncoder::compute_content_key() const {
  ContentHasher hash;
  hash.add("prompt encoder, version 1").add(tokenizer_.content_key());
  const ClipTextConfig& config = model_->config();
  hash.add(concat(config.num_attention_heads, ' ', config.hidden_act, ' ', config.layer_norm_eps, ' ',
                  config.eos_token_id, ' ', config.use_attention_mask, ' ', options_.clip_skip));
  const TensorMap weights = nn::tensor_map(*model_);
  for (const auto& [name, tensor] : weights) {
    hash.add(name).add(concat(at::toString(tensor.scalar_type()), shape_text(tensor.sizes())));
    const at::Tensor bytes = tensor.cpu().contiguous();
    hash.add(std::string_view(static_cast<const char*>(bytes.data_ptr()), bytes.nbytes()));
  }
  return hash.finish().hex();
}

}  // namespace prefusion::text
