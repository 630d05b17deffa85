#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/clip_text_model.h"
#include "text/prompt_states.h"

namespace prefusion::text {

struct PromptEncoderOptions {
  // How many more of the last layers of CLIP encoders to leave out than the model does. For SD 1.x and 2.x the final
  // layer norm follows in any case: 1 is the penultimate layer.
  int64_t clip_skip = 0;
};

// Those of a diffusers folder by the name of their component; null where there is none.
struct ClipModels {
  std::shared_ptr<ClipTextModel> text_encoder;
  std::shared_ptr<ClipTextModel> text_encoder_2;
};

// The widths of a model's text states.
struct PromptWidths {
  int64_t states = 0;  // D
  int64_t pooled = 0;  // P, 0 without
};

// From prompts to what a denoiser is conditioned on: all text encoders of a model, as its diffusers pipeline uses them.
class PromptEncoder {
 public:
  virtual ~PromptEncoder() = default;

  // A row for each prompt, in the dtype and on the device of the encoders, without gradients. Warns once a prompt when
  // it is too long. Input error for a prompt that is not UTF-8.
  virtual PromptStates encode(const std::vector<std::string>& prompts) = 0;

  // The same for negative prompts of guidance, of which empty ones were not given.
  virtual PromptStates encode_negative(const std::vector<std::string>& prompts) = 0;

  // How many of the prompt's tokens the (shortest) text encoder does not see.
  virtual int64_t truncated_tokens(const std::string& prompt) const = 0;

  virtual PromptWidths widths() const = 0;

  // The CLIP text models, whose weights LoRAs may change.
  virtual ClipModels clip_models() const = 0;

  // 32 hexadecimal digits over everything encode() depends on: tokenizers, configs, weights and their dtype, options.
  // For cache keys; the weights are read through on the first call.
  std::string content_key() const {
    if (content_key_.empty()) content_key_ = compute_content_key();
    return content_key_;
  }

 private:
  virtual std::string compute_content_key() const = 0;

  mutable std::string content_key_;
};

}  // namespace prefusion::text
