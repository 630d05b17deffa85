#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "schedulers/gaussian_step.h"

namespace prefusion::schedulers {

// One step of a sampling grid. Times order the states of sampling, large ones being noisy: the timesteps of a
// diffusion, the noise levels sigma of a flow.
struct SamplerStep {
  double time;
  double next_time;
  double timestep;    // what the denoiser is told of `time`
  bool has_variance;  // false where no noise makes the step random
};

// Sampling as a stochastic policy: the distribution of the next latents given the denoiser's prediction, at times of
// their own for every item. No state but the grid; arithmetic in fp32 whatever the dtypes (fp64 for fp64 predictions).
//   prediction, sample  [N, ...]
//   times, next_times   [N] of time_type() on their device
class StochasticSampler {
 public:
  virtual ~StochasticSampler() = default;

  // The grid, from noise to data.
  const std::vector<SamplerStep>& steps() const { return steps_; }

  // int64 timesteps, or fp32 noise levels of a flow.
  virtual at::ScalarType time_type() const = 0;
  bool is_flow() const { return time_type() != at::kLong; }

  // Whether latents at this time, the end of a grid, are clean enough to be decoded.
  virtual bool is_end(double time) const = 0;

  // Usage error for a `noise` that steps cannot have.
  virtual void check_noise(double noise) const = 0;

  // What the denoiser is told, [N].
  virtual at::Tensor denoiser_timesteps(const at::Tensor& times) const = 0;

  // `noise` 0 is deterministic; what else it means is the sampler's.
  virtual GaussianStep step(const at::Tensor& prediction, const at::Tensor& sample, const at::Tensor& times,
                            const at::Tensor& next_times, double noise) const = 0;

  // The clean latents that a prediction implies, [N, ...].
  virtual at::Tensor predict_clean(const at::Tensor& prediction, const at::Tensor& sample,
                                   const at::Tensor& times) const = 0;

  // Clean latents and noise [N, ...] -> the latents at `times`, of their dtype.
  virtual at::Tensor add_noise(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& times) const = 0;

  // By what the KL of a step is multiplied in Flow-GRPO's public code (losses/online/ppo_clip.h): -dt of a flow, 1 in a
  // diffusion. [N]
  virtual at::Tensor step_size(const at::Tensor& times, const at::Tensor& next_times) const = 0;

 protected:
  std::vector<SamplerStep> steps_;
};

}  // namespace prefusion::schedulers
