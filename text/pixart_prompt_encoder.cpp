#include "text/pixart_prompt_encoder.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::text {

PixArtPromptEncoder PixArtPromptEncoder::load(const std::filesystem::path& model_dir, at::ScalarType dtype,
                                              at::Device device, int64_t max_tokens,
                                              const PromptEncoderOptions& options) {
  check_usage(options.clip_skip == 0, "clip skip ", options.clip_skip, ": PixArt has no CLIP encoder; leave it out");
  const T5TextOptions t5_options{
      .max_length = max_tokens, .uses_mask = true, .lowercases = true, .streams_weights = options.streams_weights};
  return PixArtPromptEncoder(
      T5TextEncoder::load(model_dir / "tokenizer", model_dir / "text_encoder", dtype, device, t5_options));
}

PromptStates PixArtPromptEncoder::encode_prompts(const std::vector<std::string>& prompts, int64_t) {
  const T5TextStates states = t5_.encode(prompts);
  return {.encoder_hidden_states = states.states, .encoder_mask = states.mask};
}

std::string PixArtPromptEncoder::compute_content_key() const {
  ContentHasher hash;
  hash.add("prompt encoder of PixArt, version 1");
  t5_.add_to(hash);
  return hash.finish().hex();
}

}  // namespace prefusion::text
