#pragma once

#include <ATen/core/Tensor.h>

#include "schedulers/scheduler.h"
#include "schedulers/sigma_schedule.h"

namespace prefusion::schedulers {

// Samplers of k-diffusion work on samples clean + sigma * noise; sigma here is that noise level.
class SigmaScheduler : public Scheduler {
 public:
  double init_noise_sigma() const override;
  at::Tensor scale_model_input(const at::Tensor& sample, size_t index) const override;
  InputScales input_scales(size_t index) const override;
  at::Tensor add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const override;

 protected:
  explicit SigmaScheduler(const SchedulerConfig& resolved);

  // Sets timesteps_ and returns the sigmas: interpolated at the spaced timesteps, or the special schedule asked for.
  std::vector<double> spaced_sigmas(int64_t num_inference_steps);

  // The predicted clean latents of an unscaled sample.
  at::Tensor predict_clean(const at::Tensor& prediction, const at::Tensor& sample, const at::Tensor& sigma) const;

  SigmaTable table_;
  at::Tensor sigmas_;  // fp32, what scale_model_input divides by; one more than timesteps
};

// Euler's method ("Elucidating the Design Space of Diffusion-Based Generative Models", arXiv 2206.00364, algorithm 2
// without churn).
class EulerScheduler : public SigmaScheduler {
 public:
  explicit EulerScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;
  bool has_continuous_timesteps() const override { return true; }
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;

 protected:
  bool has_linear_steps() const override { return true; }
};

// Euler's method down to a lower noise level, and fresh noise up again.
class EulerAncestralScheduler : public SigmaScheduler {
 public:
  explicit EulerAncestralScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;
  bool has_continuous_timesteps() const override { return true; }
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;
};

// Heun's method: two calls of the denoiser a step (arXiv 2206.00364, algorithm 1).
class HeunScheduler : public SigmaScheduler {
 public:
  explicit HeunScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;
  size_t calls_per_step() const override { return 2; }
  bool has_continuous_timesteps() const override { return true; }
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;
  void keep_items(const at::Tensor& items) override;

 private:
  at::Tensor first_derivative_;  // set between the two calls of a step
  at::Tensor start_;             // the sample the step started from
};

}  // namespace prefusion::schedulers
