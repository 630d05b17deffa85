#include "text/sd3_prompt_encoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"

namespace prefusion::text {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kT5Tokens = 256;

}  // namespace

Sd3PromptEncoder Sd3PromptEncoder::load(const fs::path& model_dir, at::ScalarType dtype, at::Device device, bool has_t5,
                                        int64_t width, const PromptEncoderOptions& options) {
  const auto clip = [&](const char* encoder, const char* tokenizer) {
    auto loaded = ClipTextEncoder::load(model_dir / encoder, model_dir / tokenizer, dtype, device);
    check_input(loaded.model()->config().has_projection, (model_dir / encoder).string(),
                ": has no text_projection; expected a CLIPTextModelWithProjection");
    return loaded;
  };
  auto first = clip("text_encoder", "tokenizer");
  auto second = clip("text_encoder_2", "tokenizer_2");
  check_input(first.tokenizer().model_max_length() == second.tokenizer().model_max_length(), model_dir.string(),
              ": tokenizer/ and tokenizer_2/ cut prompts at different lengths; their states cannot be joined");
  std::optional<T5TextEncoder> third;
  if (has_t5) {
    third = T5TextEncoder::load(model_dir / "tokenizer_3", model_dir / "text_encoder_3", dtype, device,
                                {.max_length = kT5Tokens, .streams_weights = options.streams_weights});
    const int64_t t5_width = third->model()->config().d_model;
    check_input(t5_width == width, model_dir.string(), ": text_encoder_3 has width ", t5_width,
                ", the denoiser takes states of width ", width, "; they must be equal");
  }
  const int64_t clip_width = first.model()->config().hidden_size + second.model()->config().hidden_size;
  check_input(clip_width <= width, model_dir.string(), ": the CLIP encoders have together width ", clip_width,
              ", the denoiser takes states of width ", width);
  return Sd3PromptEncoder(std::move(first), std::move(second), std::move(third), width, options);
}

Sd3PromptEncoder::Sd3PromptEncoder(ClipTextEncoder first, ClipTextEncoder second, std::optional<T5TextEncoder> third,
                                   int64_t width, const PromptEncoderOptions& options)
    : first_(std::move(first)), second_(std::move(second)), third_(std::move(third)), width_(width), options_(options) {
  for (const auto& model : {first_.model(), second_.model()}) {
    const int64_t num_layers = model->config().num_hidden_layers;
    check_usage(options.clip_skip >= 0 && options.clip_skip < num_layers, "clip skip ", options.clip_skip,
                " is out of range: a text encoder has ", num_layers, " layers, the last of which is never used");
  }
}

PromptStates Sd3PromptEncoder::encode_prompts(const std::vector<std::string>& prompts, int64_t) {
  return encode_with(prompts, options_.clip_skip);
}

PromptStates Sd3PromptEncoder::encode_negative_prompts(const std::vector<std::string>& prompts, int64_t) {
  return encode_with(prompts, /*clip_skip=*/0);
}

PromptStates Sd3PromptEncoder::encode_with(const std::vector<std::string>& prompts, int64_t clip_skip) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> states, pooled;
  for (ClipTextEncoder* encoder : {&first_, &second_}) {
    const ClipTextOutput output = encoder->encode(prompts, /*obeys_mask_option=*/false);
    states.push_back(encoder->layer_output(output, 1 + clip_skip));
    pooled.push_back(output.text_embeds);
  }
  at::Tensor clip = at::cat(states, -1);
  clip = at::constant_pad_nd(clip, {0, width_ - clip.size(-1)});
  const at::Tensor t5 =
      third_ ? third_->encode(prompts).states : at::zeros({clip.size(0), kT5Tokens, width_}, clip.options());
  return {.encoder_hidden_states = at::cat({clip, t5.to(clip.scalar_type())}, 1), .pooled = at::cat(pooled, -1)};
}

int64_t Sd3PromptEncoder::truncated_tokens(const std::string& prompt) const {
  return std::max({first_.truncated_tokens(prompt), second_.truncated_tokens(prompt),
                   third_ ? third_->truncated_tokens(prompt) : 0});
}

PromptWidths Sd3PromptEncoder::widths() const {
  return {.states = width_,
          .pooled = first_.model()->config().projection_dim + second_.model()->config().projection_dim};
}

std::string Sd3PromptEncoder::compute_content_key() const {
  ContentHasher hash;
  hash.add("prompt encoder of SD3, version 1");
  first_.add_to(hash);
  second_.add_to(hash);
  if (third_) third_->add_to(hash);
  return hash.add(concat("width ", width_, ", clip skip ", options_.clip_skip)).finish().hex();
}

}  // namespace prefusion::text
