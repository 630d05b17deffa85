#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/content_hash.h"
#include "text/t5_encoder_model.h"
#include "text/t5_tokenizer.h"

namespace prefusion::text {

// How a pipeline of diffusers asks T5. Stable Diffusion 3: 256 tokens, no mask. FLUX: 512, no mask. PixArt-alpha: 120,
// PixArt-Sigma: 300, both with mask and lower case.
struct T5TextOptions {
  int64_t max_length = 256;  // tokens, the end token included; a longer prompt is cut, a shorter one padded
  bool uses_mask = false;    // padding is hidden from the encoder's attention
  bool lowercases = false;   // prompts in lower case, without white space at their ends (PixArt's clean_caption=False)
  bool streams_weights = false;  // those of the encoder's blocks stay in host memory (nn/frozen_weights.h)
};

struct T5TextStates {
  at::Tensor states;  // [B, max_length, d_model], in the dtype and on the device of the encoder
  at::Tensor mask;    // bool [B, max_length], true for tokens and false for padding, on the device of the encoder
};

// A T5 encoder with its tokenizer: one text encoder of a diffusion model, as the diffusers pipelines of Stable
// Diffusion 3, FLUX and PixArt use it.
class T5TextEncoder {
 public:
  // Reads a tokenizer and an encoder folder (`tokenizer_3/` and `text_encoder_3/` of Stable Diffusion 3, ...). Input
  // error when one is missing or unsupported or they do not fit each other; usage error for options out of range.
  static T5TextEncoder load(const std::filesystem::path& tokenizer_folder, const std::filesystem::path& encoder_folder,
                            at::ScalarType dtype, at::Device device, const T5TextOptions& options);

  T5TextEncoder(T5Tokenizer tokenizer, std::shared_ptr<T5EncoderModel> model, const T5TextOptions& options);

  // Without gradients. Warns once a prompt when it is too long. Input error for a prompt that is not UTF-8, or names an
  // added token the encoder has no embedding for.
  T5TextStates encode(const std::vector<std::string>& prompts);

  // How many of the prompt's tokens the encoder does not see.
  int64_t truncated_tokens(const std::string& prompt) const;

  // Adds everything encode() depends on: tokenizer, config, weights (which are read through) and their dtype, options.
  void add_to(ContentHasher& hash) const;

  const T5Tokenizer& tokenizer() const { return tokenizer_; }
  const std::shared_ptr<T5EncoderModel>& model() const { return model_; }
  const T5TextOptions& options() const { return options_; }

 private:
  std::string prepared(const std::string& prompt) const;
  void warn_if_truncated(const std::string& prompt);

  T5Tokenizer tokenizer_;
  std::shared_ptr<T5EncoderModel> model_;
  T5TextOptions options_;
  std::set<std::string> warned_;
};

}  // namespace prefusion::text
