#include "text/sd_prompt_encoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace prefusion::text {

SdPromptEncoder SdPromptEncoder::load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                                      const PromptEncoderOptions& options) {
  check_input(std::filesystem::is_directory(model_dir), model_dir.string(),
              ": no such folder; expected a diffusers model");
  return SdPromptEncoder(ClipTextEncoder::load(model_dir / "text_encoder", model_dir / "tokenizer", dtype, device),
                         options);
}

SdPromptEncoder::SdPromptEncoder(ClipTextEncoder encoder, const PromptEncoderOptions& options)
    : encoder_(std::move(encoder)), options_(options) {
  const int64_t num_layers = encoder_.model()->config().num_hidden_layers;
  check_usage(options.clip_skip >= 0 && options.clip_skip <= num_layers, "clip skip ", options.clip_skip,
              " is out of range: the text encoder has ", num_layers, " layers");
}

PromptStates SdPromptEncoder::encode_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) {
  const ClipPromptOutput output = encoder_.encode_prompts(prompts, options_, least_chunks, /*obeys_mask_option=*/true);
  if (options_.clip_skip == 0) return {.encoder_hidden_states = output.finish(output.states.last_hidden_state)};
  const at::Tensor layer = encoder_.layer_output(output.states, options_.clip_skip);
  return {.encoder_hidden_states = output.finish(encoder_.model()->final_layer_norm(layer))};
}

PromptStates SdPromptEncoder::encode_negative_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) {
  const ClipPromptOutput output = encoder_.encode_prompts(prompts, options_, least_chunks, /*obeys_mask_option=*/true);
  return {.encoder_hidden_states = output.finish(output.states.last_hidden_state)};
}

std::string SdPromptEncoder::compute_content_key() const {
  ContentHasher hash;
  hash.add("prompt encoder of SD, version 2");
  encoder_.add_to(hash);
  add_to(hash, options_);
  return hash.finish().hex();
}

}  // namespace prefusion::text
