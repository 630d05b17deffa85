#pragma once

#include <ATen/core/Tensor.h>

#include "schedulers/scheduler.h"

namespace prefusion::schedulers {

// "Latent Consistency Models", arXiv 2310.04378: every call predicts the clean latents; but for the last, noise brings
// them to the next timestep. Timesteps come from those the model was distilled at, T / original_inference_steps apart.
class LcmScheduler : public Scheduler {
 public:
  explicit LcmScheduler(const SchedulerConfig& config);

  // Usage error also for more steps than original_inference_steps.
  void set_timesteps(int64_t num_inference_steps) override;
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;

 private:
  at::Tensor alphas_cumprod_;  // [T]
};

}  // namespace prefusion::schedulers
