#include "pipelines/guided_denoiser.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "nn/lora.h"

namespace prefusion::pipelines {
namespace {

at::Tensor join(const at::Tensor& negative, const at::Tensor& prompt) {
  return prompt.defined() ? at::cat({negative, prompt}) : prompt;
}

// While it lives none of these adapters acts.
class AdaptersOff {
 public:
  explicit AdaptersOff(const std::vector<std::shared_ptr<nn::LoraAdapter>>& adapters) {
    for (const auto& adapter : adapters) guards_.push_back(std::make_unique<nn::AdapterOff>(*adapter));
  }
  ~AdaptersOff() {
    while (!guards_.empty()) guards_.pop_back();  // guards end in reverse order
  }
  AdaptersOff(const AdaptersOff&) = delete;
  AdaptersOff& operator=(const AdaptersOff&) = delete;

 private:
  std::vector<std::unique_ptr<nn::AdapterOff>> guards_;
};

}  // namespace

GuidedConditioning select_rows(const GuidedConditioning& conditioning, const at::Tensor& rows) {
  return {.prompt = unet::select_rows(conditioning.prompt, rows),
          .negative = unet::select_rows(conditioning.negative, rows)};
}

at::Tensor predict_both(unet::Denoiser& denoiser, const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                        const GuidedConditioning& conditioning, const BranchAdapters& adapters) {
  const unet::Conditioning& prompt = conditioning.prompt;
  const unet::Conditioning& negative = conditioning.negative;
  check_run(negative.encoder_hidden_states.defined(), "guidance needs the states of negative prompts");
  if (!adapters.empty()) {
    const auto predict_negative = [&] {
      const AdaptersOff off(adapters.prompt);
      return denoiser.forward(noisy_latents, timesteps, negative);
    };
    return at::cat({predict_negative(), predict_prompt(denoiser, noisy_latents, timesteps, conditioning, adapters)});
  }
  const unet::Conditioning both{
      .encoder_hidden_states = join(negative.encoder_hidden_states, prompt.encoder_hidden_states),
      .encoder_mask = join(negative.encoder_mask, prompt.encoder_mask),
      .pooled = join(negative.pooled, prompt.pooled),
      .time_ids = join(negative.time_ids, prompt.time_ids),
      .guidance = join(negative.guidance, prompt.guidance),
      .user_states = join(negative.user_states, prompt.user_states)};
  return denoiser.forward(at::cat({noisy_latents, noisy_latents}), at::cat({timesteps, timesteps}), both);
}

at::Tensor predict_prompt(unet::Denoiser& denoiser, const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                          const GuidedConditioning& conditioning, const BranchAdapters& adapters) {
  const AdaptersOff off(adapters.negative);
  return denoiser.forward(noisy_latents, timesteps, conditioning.prompt);
}

at::Tensor predict_guided(unet::Denoiser& denoiser, const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                          const GuidedConditioning& conditioning, const GuidanceOptions& guidance) {
  if (!guidance.is_active()) return predict_prompt(denoiser, noisy_latents, timesteps, conditioning);
  return apply_guidance(predict_both(denoiser, noisy_latents, timesteps, conditioning), guidance);
}

}  // namespace prefusion::pipelines
