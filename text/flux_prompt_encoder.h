#pragma once

#include <filesystem>

#include "text/clip_text_encoder.h"
#include "text/prompt_encoder.h"
#include "text/t5_text_encoder.h"

namespace prefusion::text {

// The text encoders of FLUX.1: T5's states, [B, 512, D], and CLIP's last state at the end-of-text token as `pooled`.
// The end of a prompt that only CLIP does not see is no loss: its words are in T5's states.
class FluxPromptEncoder : public PromptEncoder {
 public:
  // Reads `tokenizer/`, `text_encoder/` (CLIP) and `tokenizer_2/`, `text_encoder_2/` (T5). Input error when one is
  // missing or unsupported or they do not fit each other; usage error for a clip skip, which changes nothing here.
  static FluxPromptEncoder load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                                const PromptEncoderOptions& options = {});

  int64_t truncated_tokens(const std::string& prompt) const override { return t5_.truncated_tokens(prompt); }
  PromptWidths widths() const override;
  ClipModels clip_models() const override { return {.text_encoder = clip_.model()}; }

 private:
  FluxPromptEncoder(ClipTextEncoder clip, T5TextEncoder t5) : clip_(std::move(clip)), t5_(std::move(t5)) {}
  PromptStates encode_prompts(const std::vector<std::string>& prompts, int64_t) override;
  PromptStates encode_negative_prompts(const std::vector<std::string>& prompts, int64_t) override {
    return encode(prompts);
  }
  std::string compute_content_key() const override;

  ClipTextEncoder clip_;
  T5TextEncoder t5_;
};

}  // namespace prefusion::text
