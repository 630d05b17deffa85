#pragma once

#include <ATen/core/Tensor.h>

#include "core/prediction_type.h"
#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// The forward process of training: noisy_latents = signal_scale(t) * latents + noise_scale(t) * noise at the timesteps
// t = 0 .. T-1, of ascending noise. One of two:
//   diffusion ("Denoising Diffusion Probabilistic Models", arXiv 2006.11239): signal_scale^2 + noise_scale^2 = 1
//   flow matching ("Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", arXiv 2403.03206):
//     signal_scale = 1 - sigma, noise_scale = sigma, with sigma the shifted (t + 1) / T, so that t = T-1 is pure noise
class NoiseSchedule {
 public:
  // Reads the config as a DDPM schedule, as diffusers' training scripts do, whatever sampler wrote it; that of a flow
  // model as their scripts for flow models do, with its constant shift but without one that depends on the picture's
  // size. Input error for the noise levels of flow matching without flow prediction, and the other way round.
  explicit NoiseSchedule(const SchedulerConfig& config);

  const SchedulerConfig& config() const { return config_; }
  int64_t num_train_timesteps() const { return config_.num_train_timesteps; }
  PredictionType prediction_type() const { return config_.prediction_type; }
  bool is_flow() const { return config_.use_flow_sigmas; }

  // abar, [T] fp32 on the CPU; undefined for flow matching.
  const at::Tensor& alphas_cumprod() const { return alphas_cumprod_; }

  // sigma of flow matching, [T] fp32 on the CPU; undefined for diffusion.
  const at::Tensor& sigmas() const { return sigmas_; }

  // The scales at int64 `timesteps` of any shape and device, 0 <= t < T: sqrt(abar) and sqrt(1 - abar), or 1 - sigma
  // and sigma; fp32, same shape and device.
  at::Tensor signal_scale(const at::Tensor& timesteps) const;
  at::Tensor noise_scale(const at::Tensor& timesteps) const;

  // The square of signal_scale / noise_scale, fp32, shape of `timesteps`.
  at::Tensor snr(const at::Tensor& timesteps) const;

  // What the denoiser is told of them: the timesteps themselves, or sigma * T in fp32.
  at::Tensor denoiser_timesteps(const at::Tensor& timesteps) const;

  // The timesteps low .. high-1 of which the denoiser is told numbers within [told_low, told_high); told_high = T takes
  // the noisiest one in. The same numbers where it is told the timesteps themselves.
  struct Span {
    int64_t low;
    int64_t high;
  };
  Span timesteps_told(int64_t told_low, int64_t told_high) const;

  // The timestep of which the denoiser is told the number closest to `told`.
  int64_t timestep_nearest(int64_t told) const;

  // latents and noise [B, ..., C, H, W] with timesteps of their leading dimensions ([B], or [B, k] for groups) ->
  // the same shape and dtype as latents.
  at::Tensor add_noise(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& timesteps) const;

  // What the denoiser should predict: noise, sqrt(abar) * noise - sqrt(1 - abar) * latents, latents, or for flow
  // matching the velocity noise - latents.
  at::Tensor target(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& timesteps) const;

 private:
  at::Tensor lookup(const at::Tensor& table, const at::Tensor& timesteps) const;

  SchedulerConfig config_;
  at::Tensor alphas_cumprod_;  // [T]
  at::Tensor sigmas_;          // [T]
  at::Tensor signal_scales_;   // [T]
  at::Tensor noise_scales_;    // [T]
};

}  // namespace prefusion::schedulers
