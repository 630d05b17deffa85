#pragma once

#include <ATen/core/Tensor.h>

#include "schedulers/scheduler.h"

namespace prefusion::schedulers {

// "Denoising Diffusion Implicit Models", arXiv 2010.02502; eta = 0 is deterministic, eta = 1 adds DDPM's noise.
class DdimScheduler : public Scheduler {
 public:
  explicit DdimScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;

 protected:
  bool has_linear_steps() const override;

 private:
  at::Tensor alphas_cumprod_;       // [T]
  at::Tensor final_alpha_cumprod_;  // abar "before" timestep 0
  int64_t stride_ = 1;              // timesteps a step goes back
};

}  // namespace prefusion::schedulers
