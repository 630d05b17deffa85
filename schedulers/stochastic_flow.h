#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "schedulers/scheduler_config.h"
#include "schedulers/stochastic_sampler.h"

namespace prefusion::schedulers {

// The stochastic differential equation that steps of a flow follow (schedulers/flow_sde.h).
enum class FlowSde { kFlowGrpo, kDanceGrpo };

// The sampling of a flow model as a stochastic policy ("Flow-GRPO", arXiv 2505.05470). Times are noise levels sigma, 0
// the end; the noise of a step is the noise level a of Flow-GRPO, or eta of DanceGRPO, and 0 is Euler's step of the
// ODE. The step to clean latents is Euler's whatever the noise: what it would draw stays in the picture, and the public
// code of Flow-GRPO leaves it out of training.
class StochasticFlow : public StochasticSampler {
 public:
  // Reads the config as diffusers' FlowMatchEulerDiscreteScheduler does; the grid is FlowEulerScheduler's for pictures
  // of so many tokens (Scheduler::set_image_tokens). Input error for inverted levels and for samplers that draw anew at
  // every level; usage error as for Scheduler::set_timesteps.
  StochasticFlow(const SchedulerConfig& config, std::optional<int64_t> image_tokens, int64_t num_inference_steps,
                 FlowSde sde = FlowSde::kFlowGrpo);

  at::ScalarType time_type() const override { return at::kFloat; }
  bool is_end(double time) const override { return time <= 0; }
  void check_noise(double noise) const override;
  at::Tensor denoiser_timesteps(const at::Tensor& times) const override;
  GaussianStep step(const at::Tensor& prediction, const at::Tensor& sample, const at::Tensor& times,
                    const at::Tensor& next_times, double noise) const override;
  at::Tensor predict_clean(const at::Tensor& prediction, const at::Tensor& sample,
                           const at::Tensor& times) const override;
  at::Tensor add_noise(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& times) const override;
  at::Tensor step_size(const at::Tensor& times, const at::Tensor& next_times) const override;

  // The level after the first, which takes the place of sigma = 1 where that would make the noise infinite.
  double second_time() const { return steps().front().next_time; }
  FlowSde sde() const { return sde_; }

 private:
  SchedulerConfig config_;
  FlowSde sde_;
};

}  // namespace prefusion::schedulers
