#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "schedulers/gaussian_step.h"
#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// One step of a sampling grid.
struct DdimStep {
  int64_t timestep;
  int64_t previous_timestep;  // negative: the end of the schedule, whose abar set_alpha_to_one names
  bool has_variance;          // false where no eta makes the step random: nothing is left to draw at the end
};

// DDIM as a stochastic policy ("Denoising Diffusion Implicit Models", arXiv 2010.02502; as a policy: "Training
// Diffusion Models with Reinforcement Learning", arXiv 2305.13301): the distribution of x_prev given x_t, with
// timesteps of their own for every item. Stateless; arithmetic in fp32 whatever the dtypes (fp64 for fp64 predictions).
class StochasticDdim {
 public:
  // Reads the config as diffusers' DDIMScheduler does: set_alpha_to_one, clipping and spacing as it says.
  explicit StochasticDdim(const SchedulerConfig& config);

  // The steps of DdimScheduler, from noise to data. Usage error as for Scheduler::set_timesteps.
  std::vector<DdimStep> steps(int64_t num_inference_steps) const;

  // prediction and sample x_t [N, ...]; timesteps and previous_timesteps int64 [N] on their device, in 0 .. T-1 and
  // below; eta 0 is deterministic, 1 adds DDPM's posterior variance.
  GaussianStep step(const at::Tensor& prediction, const at::Tensor& sample, const at::Tensor& timesteps,
                    const at::Tensor& previous_timesteps, double eta) const;

  // The predicted x_0 of the same arguments, [N, ...].
  at::Tensor predict_clean(const at::Tensor& prediction, const at::Tensor& sample, const at::Tensor& timesteps) const;

  const SchedulerConfig& config() const { return config_; }

 private:
  at::Tensor alphas(const at::Tensor& timesteps, const at::Tensor& sample) const;

  SchedulerConfig config_;
  at::Tensor alphas_cumprod_;       // [T]
  at::Tensor final_alpha_cumprod_;  // abar "before" timestep 0
};

}  // namespace prefusion::schedulers
