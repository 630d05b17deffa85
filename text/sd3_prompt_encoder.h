#pragma once

#include <filesystem>
#include <optional>

#include "text/clip_text_encoder.h"
#include "text/prompt_encoder.h"
#include "text/t5_text_encoder.h"

namespace prefusion::text {

// The text encoders of Stable Diffusion 3 ("Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
// arXiv 2403.03206): the penultimate states of two CLIP models side by side and padded to T5's width, then T5's states:
// [B, 77 + 256, D]. `pooled` is the projected end-of-text states of both CLIP models. Without T5 its states are zeros.
class Sd3PromptEncoder : public PromptEncoder {
 public:
  // Reads tokenizer*/ and text_encoder*/ of a diffusers folder; the third pair only where `has_t5`. `width` is what the
  // denoiser takes (joint_attention_dim). Input error when one is missing or unsupported or they do not fit.
  static Sd3PromptEncoder load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                               bool has_t5, int64_t width, const PromptEncoderOptions& options = {});

  int64_t truncated_tokens(const std::string& prompt) const override;
  PromptWidths widths() const override;
  ClipModels clip_models() const override { return {first_.model(), second_.model()}; }

 private:
  Sd3PromptEncoder(ClipTextEncoder first, ClipTextEncoder second, std::optional<T5TextEncoder> third, int64_t width,
                   const PromptEncoderOptions& options);
  PromptStates encode_prompts(const std::vector<std::string>& prompts, int64_t) override;
  // Without clip skip.
  PromptStates encode_negative_prompts(const std::vector<std::string>& prompts, int64_t) override;
  PromptStates encode_with(const std::vector<std::string>& prompts, int64_t clip_skip);
  std::string compute_content_key() const override;

  ClipTextEncoder first_, second_;
  std::optional<T5TextEncoder> third_;
  int64_t width_;
  PromptEncoderOptions options_;
};

}  // namespace prefusion::text
