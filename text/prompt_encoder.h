#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "text/clip_text_model.h"
#include "text/clip_tokenizer.h"

namespace prefusion::text {

struct PromptEncoderOptions {
  // How many of the last layers to leave out; the final layer norm follows in any case. 1 is the penultimate layer.
  int64_t clip_skip = 0;
};

// From prompts to what the denoiser of an SD 1.x or 2.x model is conditioned on, as the diffusers pipeline computes it.
class PromptEncoder {
 public:
  // Reads `tokenizer/` and `text_encoder/` of a diffusers model folder. Input error when one is missing or unsupported
  // or they do not fit each other; usage error for a clip_skip the model has no layers for.
  static PromptEncoder load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                            const PromptEncoderOptions& options = {});

  PromptEncoder(ClipTokenizer tokenizer, std::shared_ptr<ClipTextModel> model,
                const PromptEncoderOptions& options = {});

  // [B, L, D] in the dtype and on the device of the model, without gradients. Warns once a prompt when it is too long.
  // Input error for a prompt that is not UTF-8.
  at::Tensor encode(const std::vector<std::string>& prompts);

  // How many of the prompt's tokens the text model does not see.
  int64_t truncated_tokens(const std::string& prompt) const;

  // 32 hexadecimal digits over everything encode() depends on: tokenizer, config, weights and their dtype, clip_skip.
  // For cache keys; the weights are read through on the first call.
  std::string content_key() const;

  const ClipTokenizer& tokenizer() const { return tokenizer_; }
  const std::shared_ptr<ClipTextModel>& model() const { return model_; }

 private:
  void warn_if_truncated(const std::string& prompt);
  std::string compute_content_key() const;

  ClipTokenizer tokenizer_;
  std::shared_ptr<ClipTextModel> model_;
  PromptEncoderOptions options_;
  std::set<std::string> warned_;
  mutable std::string content_key_;
};

}  // namespace prefusion::text
