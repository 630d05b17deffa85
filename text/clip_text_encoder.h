#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/content_hash.h"
#include "text/clip_text_model.h"
#include "text/clip_tokenizer.h"

namespace prefusion::text {

// A CLIP text model with its tokenizer: one text encoder of a diffusion model.
class ClipTextEncoder {
 public:
  // Reads both folders. Input error when one is missing or unsupported or they do not fit each other.
  static ClipTextEncoder load(const std::filesystem::path& encoder_folder,
                              const std::filesystem::path& tokenizer_folder, at::ScalarType dtype, at::Device device);

  ClipTextEncoder(ClipTokenizer tokenizer, std::shared_ptr<ClipTextModel> model)
      : tokenizer_(std::move(tokenizer)), model_(std::move(model)) {}

  // All states of a batch of prompts, without gradients; warns once a prompt when it is cut off. Padding is masked
  // where the model's config asks for it, as the pipelines of SD 1.x and 2.x do, and `obeys_mask_option`.
  ClipTextOutput encode(const std::vector<std::string>& prompts, bool obeys_mask_option);

  // The output of a layer, `layers_left_out` before the last, [B, L, D]; no layer norm. Usage error for a layer the
  // model does not have.
  at::Tensor layer_output(const ClipTextOutput& output, int64_t layers_left_out) const;

  // How many of the prompt's tokens the text model does not see.
  int64_t truncated_tokens(const std::string& prompt) const;

  // Adds everything encode() depends on.
  void add_to(ContentHasher& hash) const;

  const ClipTokenizer& tokenizer() const { return tokenizer_; }
  const std::shared_ptr<ClipTextModel>& model() const { return model_; }

 private:
  void warn_if_truncated(const std::string& prompt);

  ClipTokenizer tokenizer_;
  std::shared_ptr<ClipTextModel> model_;
  std::set<std::string> warned_;
};

}  // namespace prefusion::text
