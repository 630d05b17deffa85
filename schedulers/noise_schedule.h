#pragma once

#include <ATen/core/Tensor.h>

#include "core/prediction_type.h"
#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// The forward process of training: noisy_latents = signal_scale(t) * latents + noise_scale(t) * noise, with
// signal_scale^2 + noise_scale^2 = 1 ("Denoising Diffusion Probabilistic Models", arXiv 2006.11239).
class NoiseSchedule {
 public:
  // Reads the config as a DDPM schedule, as diffusers' training scripts do, whatever sampler wrote it. Input error for
  // flow prediction, which has another forward process.
  explicit NoiseSchedule(const SchedulerConfig& config);

  const SchedulerConfig& config() const { return config_; }
  int64_t num_train_timesteps() const { return config_.num_train_timesteps; }
  PredictionType prediction_type() const { return config_.prediction_type; }

  // abar, [T] fp32 on the CPU.
  const at::Tensor& alphas_cumprod() const { return alphas_cumprod_; }

  // sqrt(abar) and sqrt(1 - abar) at int64 `timesteps` of any shape and device, 0 <= t < T; fp32, same shape and
  // device.
  at::Tensor signal_scale(const at::Tensor& timesteps) const;
  at::Tensor noise_scale(const at::Tensor& timesteps) const;

  // abar / (1 - abar), fp32, shape of `timesteps`.
  at::Tensor snr(const at::Tensor& timesteps) const;

  // latents and noise [B, ..., C, H, W] with timesteps of their leading dimensions ([B], or [B, k] for groups) ->
  // the same shape and dtype as latents.
  at::Tensor add_noise(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& timesteps) const;

  // What the denoiser should predict: noise, sqrt(abar) * noise - sqrt(1 - abar) * latents, or latents.
  at::Tensor target(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& timesteps) const;

 private:
  at::Tensor lookup(const at::Tensor& table, const at::Tensor& timesteps) const;

  SchedulerConfig config_;
  at::Tensor alphas_cumprod_;  // [T]
  at::Tensor signal_scales_;   // [T]
  at::Tensor noise_scales_;    // [T]
};

}  // namespace prefusion::schedulers
