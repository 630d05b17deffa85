#include "pipelines/guided_denoiser.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::pipelines {
namespace {

at::Tensor join(const at::Tensor& negative, const at::Tensor& prompt) {
  return prompt.defined() ? at::cat({negative, prompt}) : prompt;
}

at::Tensor rows_of(const at::Tensor& tensor, const at::Tensor& rows) {
  return tensor.defined() ? tensor.index_select(0, rows) : tensor;
}

unet::Conditioning rows_of(const unet::Conditioning& conditioning, const at::Tensor& rows) {
  return {.encoder_hidden_states = rows_of(conditioning.encoder_hidden_states, rows),
          .pooled = rows_of(conditioning.pooled, rows),
          .time_ids = rows_of(conditioning.time_ids, rows),
          .user_states = rows_of(conditioning.user_states, rows)};
}

}  // namespace

GuidedConditioning select_rows(const GuidedConditioning& conditioning, const at::Tensor& rows) {
  return {.prompt = rows_of(conditioning.prompt, rows), .negative = rows_of(conditioning.negative, rows)};
}

at::Tensor predict_guided(unet::Denoiser& denoiser, const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                          const GuidedConditioning& conditioning, const GuidanceOptions& guidance) {
  const auto& [prompt, negative] = conditioning;
  if (!guidance.is_active()) return denoiser.forward(noisy_latents, timesteps, prompt);
  check_run(negative.encoder_hidden_states.defined(), "guidance needs the states of negative prompts");
  const unet::Conditioning both{
      .encoder_hidden_states = join(negative.encoder_hidden_states, prompt.encoder_hidden_states),
      .pooled = join(negative.pooled, prompt.pooled),
      .time_ids = join(negative.time_ids, prompt.time_ids),
      .user_states = join(negative.user_states, prompt.user_states)};
  const at::Tensor prediction =
      denoiser.forward(at::cat({noisy_latents, noisy_latents}), at::cat({timesteps, timesteps}), both);
  return apply_guidance(prediction, guidance);
}

}  // namespace prefusion::pipelines
