#include "text/clip_text_encoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/logging.h"
#include "nn/layers.h"

namespace prefusion::text {

ClipTextEncoder ClipTextEncoder::load(const std::filesystem::path& encoder_folder,
                                      const std::filesystem::path& tokenizer_folder, at::ScalarType dtype,
                                      at::Device device) {
  auto model = load_clip_text_model(encoder_folder, dtype, device);
  auto tokenizer = ClipTokenizer::load(tokenizer_folder, model->config().max_position_embeddings);
  const ClipTextConfig& config = model->config();
  check_input(tokenizer.num_ids() <= config.vocab_size, tokenizer_folder.string(), ": the tokenizer has ids up to ",
              tokenizer.num_ids() - 1, ", the text encoder's vocab_size is ", config.vocab_size);
  check_input(tokenizer.model_max_length() <= config.max_position_embeddings, tokenizer_folder.string(),
              ": the tokenizer's model_max_length is ", tokenizer.model_max_length(),
              ", the text encoder's max_position_embeddings is ", config.max_position_embeddings);
  return ClipTextEncoder(std::move(tokenizer), std::move(model));
}

ClipTextOutput ClipTextEncoder::encode(const std::vector<std::string>& prompts, bool obeys_mask_option) {
  const at::NoGradGuard no_grad;
  return encode_recorded(prompts, obeys_mask_option);
}

ClipTextOutput ClipTextEncoder::encode_recorded(const std::vector<std::string>& prompts, bool obeys_mask_option) {
  for (const std::string& prompt : prompts) warn_if_truncated(prompt);
  const at::Tensor mask = masks_padding(obeys_mask_option) ? tokenizer_.attention_mask_batch(prompts) : at::Tensor();
  return run(tokenizer_.tokenize_batch(prompts), mask);
}

bool ClipTextEncoder::masks_padding(bool obeys_mask_option) const {
  return obeys_mask_option && model_->config().use_attention_mask;
}

ClipTextOutput ClipTextEncoder::run(const at::Tensor& ids, const at::Tensor& mask) {
  const at::Device device = model_->parameters().front().device();
  return model_->forward(ids.to(device), mask.defined() ? mask.to(device) : mask);
}

at::Tensor ClipTextEncoder::layer_output(const ClipTextOutput& output, int64_t layers_left_out) const {
  const auto last = static_cast<int64_t>(output.hidden_states.size()) - 1;
  check_usage(layers_left_out >= 0 && layers_left_out <= last, "the text encoder has ", last, " layers; ",
              layers_left_out, " cannot be left out");
  return output.hidden_states[static_cast<size_t>(last - layers_left_out)];
}

ClipPromptOutput ClipTextEncoder::encode_prompts(const std::vector<std::string>& prompts,
                                                 const PromptEncoderOptions& options, int64_t least_chunks,
                                                 bool obeys_mask_option) {
  if (options.syntax == PromptSyntax::kPlain && options.long_prompts == LongPrompts::kTruncate) {
    return {.states = encode_recorded(prompts, obeys_mask_option)};
  }
  if (options.long_prompts == LongPrompts::kSegments) return encode_segments(prompts, obeys_mask_option);
  std::vector<WeightedTokens> tokens;
  for (const std::string& prompt : prompts) {
    tokens.push_back(weighted_tokens(tokenizer_, prompt, options.syntax));
    if (options.long_prompts == LongPrompts::kTruncate) {
      warn_of(prompt, tokenizer_.cut_off(tokens.back().ids), room());
      tokens.back() = cut_to_fit(tokenizer_, tokens.back());
    }
  }
  const TokenChunks chunks = split_into_chunks(tokenizer_, tokens, least_chunks);
  const ClipTextOutput rows = run(chunks.ids, masks_padding(obeys_mask_option) ? chunks.mask : at::Tensor());
  ClipPromptOutput output{.states = join_chunks(rows, chunks.per_prompt)};
  if (options.syntax == PromptSyntax::kWeighted) output.weights = chunks.weights.to(rows.last_hidden_state.device());
  return output;
}

ClipPromptOutput ClipTextEncoder::encode_segments(const std::vector<std::string>& prompts, bool obeys_mask_option) {
  for (const std::string& prompt : prompts) {
    if (warned_.contains(prompt)) continue;
    warn_of(prompt, cut_off_segments(tokenizer_, prompt),
            concat(room(), " a sentence, or ", kSegmentStates, " states in all"));
  }
  ClipPromptOutput output{.segments = split_into_segments(tokenizer_, prompts, model_->config().has_projection)};
  const SegmentRows& segments = *output.segments;
  output.states = run(segments.ids, masks_padding(obeys_mask_option) ? segments.mask : at::Tensor());
  output.states.pooled = pooled_of_segments(output.states.pooled, segments);
  output.states.text_embeds = pooled_of_segments(output.states.text_embeds, segments);
  return output;
}

int64_t ClipTextEncoder::truncated_tokens(const std::string& prompt, const PromptEncoderOptions& options) const {
  if (options.long_prompts == LongPrompts::kChunk) return 0;
  if (options.long_prompts == LongPrompts::kSegments) return std::ssize(cut_off_segments(tokenizer_, prompt));
  return static_cast<int64_t>(tokenizer_.cut_off(weighted_tokens(tokenizer_, prompt, options.syntax).ids).size());
}

int64_t ClipTextEncoder::num_chunks(const std::string& prompt, const PromptEncoderOptions& options) const {
  if (options.long_prompts != LongPrompts::kChunk) return 1;
  return chunks_of(tokenizer_, weighted_tokens(tokenizer_, prompt, options.syntax));
}

void ClipTextEncoder::warn_if_truncated(const std::string& prompt) {
  if (!warned_.contains(prompt)) warn_of(prompt, tokenizer_.cut_off(tokenizer_.encode(prompt)), room());
}

std::string ClipTextEncoder::room() const {
  return concat(tokenizer_.model_max_length(), " tokens");
}

void ClipTextEncoder::warn_of(const std::string& prompt, const std::vector<int64_t>& cut, const std::string& room) {
  if (cut.empty() || warned_.contains(prompt)) return;
  // A bound on memory over millions of prompts; past it a warning may repeat.
  constexpr size_t kMaxRemembered = 10000;
  if (warned_.size() >= kMaxRemembered) warned_.clear();
  warned_.insert(prompt);
  log_warn("prompt is longer than ", room, "; cut off: '", tokenizer_.decode(cut), "'");
}

void add_to(ContentHasher& hash, const PromptEncoderOptions& options) {
  hash.add(concat("clip skip ", options.clip_skip));
  if (options.syntax == PromptSyntax::kWeighted) hash.add("weighted, version 1");
  if (options.long_prompts == LongPrompts::kChunk) hash.add("chunks, version 1");
  if (options.long_prompts == LongPrompts::kSegments) hash.add("segments, version 1");
}

void ClipTextEncoder::add_to(ContentHasher& hash) const {
  hash.add(tokenizer_.content_key());
  const ClipTextConfig& config = model_->config();
  hash.add(concat(config.num_attention_heads, ' ', config.hidden_act, ' ', config.layer_norm_eps, ' ',
                  config.eos_token_id, ' ', config.use_attention_mask));
  const TensorMap weights = nn::tensor_map(*model_);
  for (const auto& [name, tensor] : weights) {
    hash.add(name).add(concat(at::toString(tensor.scalar_type()), shape_text(tensor.sizes())));
    const at::Tensor bytes = tensor.cpu().contiguous();
    hash.add(std::string_view(static_cast<const char*>(bytes.data_ptr()), bytes.nbytes()));
  }
}

}  // namespace prefusion::text
