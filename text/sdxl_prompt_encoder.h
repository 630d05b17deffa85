#pragma once

#include <filesystem>
#include <optional>

#include "text/clip_text_encoder.h"
#include "text/prompt_encoder.h"

namespace prefusion::text {

// The text encoders of SDXL ("SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", arXiv
// 2307.01952): the penultimate states of CLIP ViT-L and OpenCLIP ViT-bigG side by side, [B, L, D1 + D2], and the
// projected end-of-text state of the latter as `pooled`. The refiner has the second one alone.
class SdxlPromptEncoder : public PromptEncoder {
 public:
  // Reads `tokenizer/`, `text_encoder/` (where `has_first`) and `tokenizer_2/`, `text_encoder_2/`. With
  // `zeros_for_no_negative_prompt` (force_zeros_for_empty_prompt of the model) a negative prompt that was not given is
  // zeros, not the states of "". Input and usage errors as SdPromptEncoder::load.
  static SdxlPromptEncoder load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                                bool has_first, bool zeros_for_no_negative_prompt,
                                const PromptEncoderOptions& options = {});

  int64_t truncated_tokens(const std::string& prompt) const override;
  int64_t num_chunks(const std::string& prompt) const override;
  PromptWidths widths() const override;
  ClipModels clip_models() const override;
  bool can_be_trained() const override { return true; }

 private:
  SdxlPromptEncoder(std::optional<ClipTextEncoder> first, ClipTextEncoder second, bool zeros_for_no_negative_prompt,
                    const PromptEncoderOptions& options);

  PromptStates encode_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) override;
  PromptStates encode_negative_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) override;
  PromptStates encode_with(const std::vector<std::string>& prompts, int64_t clip_skip, int64_t least_chunks);
  std::string compute_content_key() const override;

  std::optional<ClipTextEncoder> first_;
  ClipTextEncoder second_;
  bool zeros_for_no_negative_prompt_;
  PromptEncoderOptions options_;
};

}  // namespace prefusion::text
