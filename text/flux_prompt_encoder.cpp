#include "text/flux_prompt_encoder.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::text {

FluxPromptEncoder FluxPromptEncoder::load(const std::filesystem::path& model_dir, at::ScalarType dtype,
                                          at::Device device, const PromptEncoderOptions& options) {
  check_usage(options.clip_skip == 0, "clip skip ", options.clip_skip,
              ": the denoiser of FLUX does not see the layers of CLIP; leave it out");
  auto clip = ClipTextEncoder::load(model_dir / "text_encoder", model_dir / "tokenizer", dtype, device);
  auto t5 = T5TextEncoder::load(model_dir / "tokenizer_2", model_dir / "text_encoder_2", dtype, device,
                                {.max_length = 512, .streams_weights = options.streams_weights});
  return FluxPromptEncoder(std::move(clip), std::move(t5));
}

PromptStates FluxPromptEncoder::encode_prompts(const std::vector<std::string>& prompts, int64_t) {
  return {.encoder_hidden_states = t5_.encode(prompts).states,
          .pooled = clip_.encode(prompts, /*obeys_mask_option=*/false).pooled};
}

PromptWidths FluxPromptEncoder::widths() const {
  return {.states = t5_.model()->config().d_model, .pooled = clip_.model()->config().hidden_size};
}

std::string FluxPromptEncoder::compute_content_key() const {
  ContentHasher hash;
  hash.add("prompt encoder of FLUX, version 1");
  clip_.add_to(hash);
  t5_.add_to(hash);
  return hash.finish().hex();
}

}  // namespace prefusion::text
