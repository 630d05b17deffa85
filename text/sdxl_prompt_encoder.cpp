#include "text/sdxl_prompt_encoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"

namespace prefusion::text {
namespace fs = std::filesystem;

SdxlPromptEncoder SdxlPromptEncoder::load(const fs::path& model_dir, at::ScalarType dtype, at::Device device,
                                          bool has_first, bool zeros_for_no_negative_prompt,
                                          const PromptEncoderOptions& options) {
  std::optional<ClipTextEncoder> first;
  if (has_first) {
    first = ClipTextEncoder::load(model_dir / "text_encoder", model_dir / "tokenizer", dtype, device);
  }
  auto second = ClipTextEncoder::load(model_dir / "text_encoder_2", model_dir / "tokenizer_2", dtype, device);
  check_input(second.model()->config().has_projection, (model_dir / "text_encoder_2").string(),
              ": has no text_projection; expected a CLIPTextModelWithProjection");
  check_input(!first || first->tokenizer().model_max_length() == second.tokenizer().model_max_length(),
              model_dir.string(), ": tokenizer/ and tokenizer_2/ cut prompts at different lengths; their states cannot",
              " be joined");
  return SdxlPromptEncoder(std::move(first), std::move(second), zeros_for_no_negative_prompt, options);
}

SdxlPromptEncoder::SdxlPromptEncoder(std::optional<ClipTextEncoder> first, ClipTextEncoder second,
                                     bool zeros_for_no_negative_prompt, const PromptEncoderOptions& options)
    : first_(std::move(first)),
      second_(std::move(second)),
      zeros_for_no_negative_prompt_(zeros_for_no_negative_prompt),
      options_(options) {
  const ClipModels models = clip_models();
  for (const auto& model : {models.text_encoder, models.text_encoder_2}) {
    if (!model) continue;
    const int64_t num_layers = model->config().num_hidden_layers;
    check_usage(options.clip_skip >= 0 && options.clip_skip < num_layers, "clip skip ", options.clip_skip,
                " is out of range: a text encoder has ", num_layers, " layers, the last of which is never used");
  }
}

PromptStates SdxlPromptEncoder::encode_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) {
  return encode_with(prompts, options_.clip_skip, least_chunks);
}

PromptStates SdxlPromptEncoder::encode_negative_prompts(const std::vector<std::string>& prompts, int64_t least_chunks) {
  PromptStates states = encode_with(prompts, /*clip_skip=*/0, least_chunks);
  if (!zeros_for_no_negative_prompt_) return states;
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (!prompts[i].empty()) continue;
    states.encoder_hidden_states.select(0, static_cast<int64_t>(i)).zero_();
    states.pooled.select(0, static_cast<int64_t>(i)).zero_();
  }
  return states;
}

PromptStates SdxlPromptEncoder::encode_with(const std::vector<std::string>& prompts, int64_t clip_skip,
                                            int64_t least_chunks) {
  for (const std::string& prompt : prompts) least_chunks = std::max(least_chunks, num_chunks(prompt));
  std::vector<at::Tensor> parts;
  const auto encode = [&](ClipTextEncoder& encoder) {
    ClipPromptOutput output = encoder.encode_prompts(prompts, options_, least_chunks, /*obeys_mask_option=*/false);
    parts.push_back(output.finish(encoder.layer_output(output.states, 1 + clip_skip)));
    return output.states.text_embeds;
  };
  if (first_) encode(*first_);
  const at::Tensor pooled = encode(second_);
  return {.encoder_hidden_states = at::cat(parts, -1), .pooled = pooled};
}

int64_t SdxlPromptEncoder::truncated_tokens(const std::string& prompt) const {
  return std::max(first_ ? first_->truncated_tokens(prompt, options_) : 0, second_.truncated_tokens(prompt, options_));
}

int64_t SdxlPromptEncoder::num_chunks(const std::string& prompt) const {
  return std::max(first_ ? first_->num_chunks(prompt, options_) : 1, second_.num_chunks(prompt, options_));
}

PromptWidths SdxlPromptEncoder::widths() const {
  const ClipTextConfig& second = second_.model()->config();
  return {.states = (first_ ? first_->model()->config().hidden_size : 0) + second.hidden_size,
          .pooled = second.projection_dim};
}

ClipModels SdxlPromptEncoder::clip_models() const {
  return {.text_encoder = first_ ? first_->model() : nullptr, .text_encoder_2 = second_.model()};
}

std::string SdxlPromptEncoder::compute_content_key() const {
  ContentHasher hash;
  hash.add("prompt encoder of SDXL, version 1");
  if (first_) first_->add_to(hash);
  second_.add_to(hash);
  add_to(hash, options_);
  return hash.finish().hex();
}

}  // namespace prefusion::text
