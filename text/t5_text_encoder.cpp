#include "text/t5_text_encoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/logging.h"
#include "nn/layers.h"
#include "text/unicode.h"

namespace prefusion::text {

T5TextEncoder T5TextEncoder::load(const std::filesystem::path& tokenizer_folder,
                                  const std::filesystem::path& encoder_folder, at::ScalarType dtype, at::Device device,
                                  const T5TextOptions& options) {
  auto tokenizer = T5Tokenizer::load(tokenizer_folder);
  auto model = load_t5_encoder_model(encoder_folder, dtype, device, options.streams_weights);
  check_input(tokenizer.num_ids() <= model->config().vocab_size, encoder_folder.string(), ": 'vocab_size' is ",
              model->config().vocab_size, ", the tokenizer in ", tokenizer_folder.string(), " has ids up to ",
              tokenizer.num_ids() - 1);
  return T5TextEncoder(std::move(tokenizer), std::move(model), options);
}

T5TextEncoder::T5TextEncoder(T5Tokenizer tokenizer, std::shared_ptr<T5EncoderModel> model, const T5TextOptions& options)
    : tokenizer_(std::move(tokenizer)), model_(std::move(model)), options_(options) {
  constexpr int64_t kLongest = 1 << 16;
  check_usage(options.max_length >= 1 && options.max_length <= kLongest, "a T5 prompt of ", options.max_length,
              " tokens is out of range; expected 1 to ", kLongest);
}

T5TextStates T5TextEncoder::encode(const std::vector<std::string>& prompts) {
  at::NoGradGuard no_grad;
  std::vector<std::string> texts;
  for (const std::string& prompt : prompts) {
    texts.push_back(prepared(prompt));
    warn_if_truncated(texts.back());
  }
  const T5Tokens tokens = tokenizer_.tokenize(texts, options_.max_length);
  const int64_t vocab_size = model_->config().vocab_size;
  const int64_t highest_id = prompts.empty() ? 0 : tokens.input_ids.max().item<int64_t>();
  check_input(highest_id < vocab_size, "a prompt names the added token ", highest_id, " ('",
              tokenizer_.decode({highest_id}), "'), the T5 encoder has embeddings for ", vocab_size, " tokens only");
  const at::Tensor mask = tokens.attention_mask.to(model_->device(), at::kBool);  // [B, L]
  const at::Tensor states =
      model_->forward(tokens.input_ids.to(model_->device()), options_.uses_mask ? mask : at::Tensor());
  return {.states = states, .mask = mask};
}

int64_t T5TextEncoder::truncated_tokens(const std::string& prompt) const {
  const std::vector<int64_t> tokens = tokenizer_.encode(prepared(prompt));
  return static_cast<int64_t>(tokenizer_.cut_off(tokens, options_.max_length).size());
}

std::string T5TextEncoder::prepared(const std::string& prompt) const {
  if (!options_.lowercases) return prompt;
  const size_t invalid = find_invalid_utf8(prompt);
  check_input(invalid == std::string::npos, "prompt is not valid UTF-8: byte ", invalid, " does not begin a character");
  return std::string(python_strip(python_lower(prompt)));
}

void T5TextEncoder::warn_if_truncated(const std::string& prompt) {
  if (warned_.contains(prompt)) return;
  const std::vector<int64_t> cut = tokenizer_.cut_off(tokenizer_.encode(prompt), options_.max_length);
  if (cut.empty()) return;
  // A bound on memory over millions of prompts; past it a warning may repeat.
  constexpr size_t kMaxRemembered = 10000;
  if (warned_.size() >= kMaxRemembered) warned_.clear();
  warned_.insert(prompt);
  log_warn("prompt is longer than ", options_.max_length, " T5 tokens; cut off: '", tokenizer_.decode(cut), "'");
}

void T5TextEncoder::add_to(ContentHasher& hash) const {
  hash.add("T5 text encoder, version 1").add(tokenizer_.content_key());
  const T5Config& config = model_->config();
  // What the shapes of the weights do not say.
  hash.add(concat(config.num_heads, ' ', config.relative_attention_max_distance, ' ', config.layer_norm_epsilon, ' ',
                  config.dense_act_fn, ' ', options_.max_length, ' ', options_.uses_mask, options_.lowercases));
  for (const auto& [name, kept] : nn::tensor_map(*model_)) {
    const at::Tensor tensor = kept.is_floating_point() ? kept.to(model_->dtype_of(name)) : kept;
    hash.add(name).add(concat(at::toString(tensor.scalar_type()), shape_text(tensor.sizes())));
    const at::Tensor bytes = tensor.cpu().contiguous();
    hash.add(std::string_view(static_cast<const char*>(bytes.data_ptr()), bytes.nbytes()));
  }
}

}  // namespace prefusion::text
