#include "pipelines/guided_denoiser.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::pipelines {
namespace {

at::Tensor join(const at::Tensor& negative, const at::Tensor& prompt) {
  return prompt.defined() ? at::cat({negative, prompt}) : prompt;
}

}  // namespace

GuidedConditioning select_rows(const GuidedConditioning& conditioning, const at::Tensor& rows) {
  return {.prompt = unet::select_rows(conditioning.prompt, rows),
          .negative = unet::select_rows(conditioning.negative, rows)};
}

at::Tensor predict_guided(unet::Denoiser& denoiser, const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                          const GuidedConditioning& conditioning, const GuidanceOptions& guidance) {
  const auto& [prompt, negative] = conditioning;
  if (!guidance.is_active()) return denoiser.forward(noisy_latents, timesteps, prompt);
  check_run(negative.encoder_hidden_states.defined(), "guidance needs the states of negative prompts");
  const unet::Conditioning both{
      .encoder_hidden_states = join(negative.encoder_hidden_states, prompt.encoder_hidden_states),
      .encoder_mask = join(negative.encoder_mask, prompt.encoder_mask),
      .pooled = join(negative.pooled, prompt.pooled),
      .time_ids = join(negative.time_ids, prompt.time_ids),
      .guidance = join(negative.guidance, prompt.guidance),
      .user_states = join(negative.user_states, prompt.user_states)};
  const at::Tensor prediction =
      denoiser.forward(at::cat({noisy_latents, noisy_latents}), at::cat({timesteps, timesteps}), both);
  return apply_guidance(prediction, guidance);
}

}  // namespace prefusion::pipelines
