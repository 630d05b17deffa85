#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "schedulers/noise_schedule.h"
#include "schedulers/stochastic_ddim.h"
#include "schedulers/stochastic_sampler.h"

namespace prefusion::schedulers {

// The sampling of a diffusion model as a stochastic policy: DDIM's steps. Times are timesteps 0 .. T-1, below 0 the end
// of the schedule; the noise of a step is eta, 1 being DDPM's.
class DdimSampler : public StochasticSampler {
 public:
  // Usage error for a number of steps the sampler cannot make.
  DdimSampler(StochasticDdim ddim, int64_t num_inference_steps);

  at::ScalarType time_type() const override { return at::kLong; }
  bool is_end(double time) const override { return time < 0; }
  void check_noise(double noise) const override;
  at::Tensor denoiser_timesteps(const at::Tensor& times) const override { return times; }
  GaussianStep step(const at::Tensor& prediction, const at::Tensor& sample, const at::Tensor& times,
                    const at::Tensor& next_times, double noise) const override;
  at::Tensor predict_clean(const at::Tensor& prediction, const at::Tensor& sample,
                           const at::Tensor& times) const override;
  at::Tensor add_noise(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& times) const override;
  at::Tensor step_size(const at::Tensor& times, const at::Tensor& next_times) const override;

 private:
  StochasticDdim ddim_;
  NoiseSchedule schedule_;
};

}  // namespace prefusion::schedulers
