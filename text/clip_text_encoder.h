#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/content_hash.h"
#include "text/clip_text_model.h"
#include "text/clip_tokenizer.h"
#include "text/prompt_chunks.h"
#include "text/prompt_encoder.h"
#include "text/prompt_segments.h"

namespace prefusion::text {

// The states of prompts that may have weights and be encoded in K chunks: of [B, K L, D] instead of [B, L, D], with the
// pooled ones of the first chunk. Or in segments: states are then those of rows that finish() puts together.
struct ClipPromptOutput {
  ClipTextOutput states;
  at::Tensor weights;                   // [B, K L] fp32, undefined where all are 1
  std::optional<SegmentRows> segments;  // where the states are theirs

  // States of a layer as the denoiser gets them: under the weights (weigh_states), or of segments the joined ones.
  at::Tensor finish(const at::Tensor& layer) const {
    if (segments) return join_segments(layer, *segments);
    return weights.defined() ? weigh_states(layer, weights) : layer;
  }
};

// Adds what options change of what an encoder of prompts gives.
void add_to(ContentHasher& hash, const PromptEncoderOptions& options);

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
  // The same with gradients where autograd records.
  ClipTextOutput encode_recorded(const std::vector<std::string>& prompts, bool obeys_mask_option);

  // The same, recorded too, as the options ask for: prompts with weights, in as many chunks as the longest needs and
  // `least_chunks`.
  ClipPromptOutput encode_prompts(const std::vector<std::string>& prompts, const PromptEncoderOptions& options,
                                  int64_t least_chunks, bool obeys_mask_option);

  // The output of a layer, `layers_left_out` before the last, [B, L, D]; no layer norm. Usage error for a layer the
  // model does not have.
  at::Tensor layer_output(const ClipTextOutput& output, int64_t layers_left_out) const;

  // How many of the prompt's tokens the text model does not see.
  int64_t truncated_tokens(const std::string& prompt, const PromptEncoderOptions& options = {}) const;

  // How many chunks a prompt takes; 1 where long prompts are cut off.
  int64_t num_chunks(const std::string& prompt, const PromptEncoderOptions& options) const;

  // Adds everything encode() depends on.
  void add_to(ContentHasher& hash) const;

  const ClipTokenizer& tokenizer() const { return tokenizer_; }
  const std::shared_ptr<ClipTextModel>& model() const { return model_; }

 private:
  ClipPromptOutput encode_segments(const std::vector<std::string>& prompts, bool obeys_mask_option);
  bool masks_padding(bool obeys_mask_option) const;
  // ids int64 [B, L], mask the same or undefined, wherever they are.
  ClipTextOutput run(const at::Tensor& ids, const at::Tensor& mask);
  void warn_if_truncated(const std::string& prompt);
  void warn_of(const std::string& prompt, const std::vector<int64_t>& cut, const std::string& room);
  std::string room() const;  // of a row, in words

  ClipTokenizer tokenizer_;
  std::shared_ptr<ClipTextModel> model_;
  std::set<std::string> warned_;
};

}  // namespace prefusion::text
