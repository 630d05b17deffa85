#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/clip_text_model.h"
#include "text/prompt_states.h"

namespace prefusion::text {

// Whether brackets in prompts are emphasis (text/prompt_syntax.h) or brackets.
enum class PromptSyntax { kPlain, kWeighted };

// What happens to tokens for which a CLIP encoder has no room: cut off, or encoded in chunks of its length whose states
// stand one after the other (text/prompt_chunks.h). Or every prompt, long or short, is encoded sentence by sentence
// (text/prompt_segments.h).
enum class LongPrompts { kTruncate, kChunk, kSegments };

// By the name on the command line: "truncate", "chunk" or "segments". Usage error for another.
LongPrompts parse_long_prompts(const std::string& name);
const char* long_prompts_name(LongPrompts long_prompts);

struct PromptEncoderOptions {
  // How many more of the last layers of CLIP encoders to leave out than the model does. For SD 1.x and 2.x the final
  // layer norm follows in any case: 1 is the penultimate layer.
  int64_t clip_skip = 0;
  // Of the encoders of Stable Diffusion 1.x, 2.x and XL; others have neither.
  PromptSyntax syntax = PromptSyntax::kPlain;
  LongPrompts long_prompts = LongPrompts::kTruncate;
  bool streams_weights = false;  // weights of T5's blocks stay in host memory (nn/frozen_weights.h)
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
  // it is too long. Encoders that chunk long prompts give all rows as many chunks as the longest needs, and
  // `least_chunks`: what is missing is chunks of no text. Input error for a prompt that is not UTF-8.
  PromptStates encode(const std::vector<std::string>& prompts, int64_t least_chunks = 1);

  // The same with gradients to what of the text encoders requires some (adapters in training). Usage error for encoders
  // that are not trained here.
  PromptStates encode_with_gradients(const std::vector<std::string>& prompts);

  // The same for negative prompts of guidance, of which empty ones were not given.
  PromptStates encode_negative(const std::vector<std::string>& prompts, int64_t least_chunks = 1);

  // How many chunks a prompt is encoded in. Rows of another number have another length.
  virtual int64_t num_chunks(const std::string& /*prompt*/) const { return 1; }

  // How many of the prompt's tokens the (shortest) text encoder does not see.
  virtual int64_t truncated_tokens(const std::string& prompt) const = 0;

  virtual PromptWidths widths() const = 0;

  // The CLIP text models, whose weights LoRAs may change.
  virtual ClipModels clip_models() const = 0;

  // Whether encode_with_gradients() is there: encode_prompts() then lets autograd record.
  virtual bool can_be_trained() const { return false; }

  // 32 hexadecimal digits over everything encode() depends on: tokenizers, configs, weights and their dtype, options.
  // For cache keys; the weights are read through on the first call.
  std::string content_key() const {
    if (content_key_.empty()) content_key_ = compute_content_key();
    return content_key_;
  }

 private:
  virtual PromptStates encode_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) = 0;
  virtual PromptStates encode_negative_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) = 0;
  virtual std::string compute_content_key() const = 0;

  mutable std::string content_key_;
};

}  // namespace prefusion::text
