#pragma once

#include <filesystem>

#include "text/clip_text_encoder.h"
#include "text/prompt_encoder.h"

namespace prefusion::text {

// The one text encoder of SD 1.x and 2.x ("High-Resolution Image Synthesis with Latent Diffusion Models", arXiv
// 2112.10752): CLIP's last hidden state, [B, L, D].
class SdPromptEncoder : public PromptEncoder {
 public:
  // Reads `tokenizer/` and `text_encoder/` of a diffusers model folder. Input error when one is missing or unsupported
  // or they do not fit each other; usage error for a clip_skip the model has no layers for.
  static SdPromptEncoder load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                              const PromptEncoderOptions& options = {});

  explicit SdPromptEncoder(ClipTextEncoder encoder, const PromptEncoderOptions& options = {});

  int64_t truncated_tokens(const std::string& prompt) const override {
    return encoder_.truncated_tokens(prompt, options_);
  }
  int64_t num_chunks(const std::string& prompt) const override { return encoder_.num_chunks(prompt, options_); }
  PromptWidths widths() const override { return {.states = encoder_.model()->config().hidden_size}; }
  ClipModels clip_models() const override { return {.text_encoder = encoder_.model()}; }
  bool can_be_trained() const override { return true; }

  const ClipTokenizer& tokenizer() const { return encoder_.tokenizer(); }

 private:
  PromptStates encode_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) override;
  // Without clip skip: diffusers applies it to prompts only.
  PromptStates encode_negative_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) override;
  std::string compute_content_key() const override;

  ClipTextEncoder encoder_;
  PromptEncoderOptions options_;
};

}  // namespace prefusion::text
