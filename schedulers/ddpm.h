#pragma once

#include <ATen/core/Tensor.h>

#include "schedulers/scheduler.h"

namespace prefusion::schedulers {

// Ancestral sampling of "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, over a subset of the timesteps.
class DdpmScheduler : public Scheduler {
 public:
  explicit DdpmScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;

  // `prediction` may have 2 C channels where the variance is learned.
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;

 private:
  at::Tensor deviation(const at::Tensor& alpha, const at::Tensor& alpha_previous, const at::Tensor& learned) const;

  at::Tensor alphas_cumprod_;  // [T]
};

}  // namespace prefusion::schedulers
