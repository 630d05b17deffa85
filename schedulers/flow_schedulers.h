#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "schedulers/scheduler.h"

namespace prefusion::schedulers {

// Samplers of flow models work on samples (1 - sigma) * clean + sigma * noise along the predicted velocity
// noise - clean, from sigma = 1 down to 0 (schedulers/flow_sigmas.h).
class FlowScheduler : public Scheduler {
 public:
  bool has_continuous_timesteps() const override { return true; }
  InputScales input_scales(size_t index) const override;
  at::Tensor add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const override;

 protected:
  explicit FlowScheduler(SchedulerConfig resolved) : Scheduler(std::move(resolved)) {}

  at::Tensor sigmas_;  // fp32, one more than calls
};

// Euler's method. With stochastic_sampling every step goes to the predicted clean latents and back to the next level
// with fresh noise, as few-step models want it.
class FlowEulerScheduler : public FlowScheduler {
 public:
  explicit FlowEulerScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;
  InputScales input_scales(size_t index) const override;
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;

 protected:
  bool has_linear_steps() const override { return !config_.stochastic_sampling; }
};

// Heun's method: two calls of the denoiser a step, but for the last.
class FlowHeunScheduler : public FlowScheduler {
 public:
  explicit FlowHeunScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;
  size_t calls_per_step() const override { return 2; }
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;
  void keep_items(const at::Tensor& items) override;

 private:
  at::Tensor first_velocity_;  // set between the two calls of a step
  at::Tensor start_;           // the sample the step started from
};

}  // namespace prefusion::schedulers
