#pragma once

#include <filesystem>

#include "text/prompt_encoder.h"
#include "text/t5_text_encoder.h"

namespace prefusion::text {

// The one text encoder of PixArt ("PixArt-alpha", arXiv 2310.00426; "PixArt-Sigma", arXiv 2403.04692): T5's states with
// the mask of their tokens. Prompts are taken in lower case.
class PixArtPromptEncoder : public PromptEncoder {
 public:
  // Reads `tokenizer/` and `text_encoder/`; prompts have `max_tokens`, 120 for alpha and 300 for Sigma. Input error
  // when one is missing or unsupported or they do not fit each other; usage error for a clip skip.
  static PixArtPromptEncoder load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                                  int64_t max_tokens, const PromptEncoderOptions& options = {});

  int64_t truncated_tokens(const std::string& prompt) const override { return t5_.truncated_tokens(prompt); }
  PromptWidths widths() const override { return {.states = t5_.model()->config().d_model}; }
  ClipModels clip_models() const override { return {}; }

 private:
  explicit PixArtPromptEncoder(T5TextEncoder t5) : t5_(std::move(t5)) {}
  PromptStates encode_prompts(const std::vector<std::string>& prompts, int64_t) override;
  PromptStates encode_negative_prompts(const std::vector<std::string>& prompts, int64_t) override {
    return encode(prompts);
  }
  std::string compute_content_key() const override;

  T5TextEncoder t5_;
};

}  // namespace prefusion::text
