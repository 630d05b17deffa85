#include "schedulers/noise_schedule.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "schedulers/beta_schedule.h"
#include "schedulers/flow_sigmas.h"
#include "schedulers/per_item.h"

namespace prefusion::schedulers {
namespace {

// HeunDiscrete alone knows the schedule "exp"; its other defaults are what such a model was trained with.
SchedulerClass reading_class(const SchedulerConfig& config) {
  if (config.prediction_type == PredictionType::kFlow) return SchedulerClass::kFlowEuler;
  const bool is_heun = !config.trained_betas && config.beta_schedule == "exp";
  return is_heun ? SchedulerClass::kHeun : SchedulerClass::kDdpm;
}

at::Tensor broadcast_to(const at::Tensor& scale, const at::Tensor& like) {
  return align_to(scale, like).to(like.scalar_type());
}

}  // namespace

NoiseSchedule::NoiseSchedule(const SchedulerConfig& config) : config_(resolve_for(config, reading_class(config))) {
  if (is_flow()) {
    sigmas_ = flow_training_sigmas(config_);
    signal_scales_ = 1 - sigmas_;
    noise_scales_ = sigmas_;
    return;
  }
  alphas_cumprod_ = make_alphas_cumprod(config_);
  signal_scales_ = alphas_cumprod_.sqrt();
  noise_scales_ = (1 - alphas_cumprod_).sqrt();
}

at::Tensor NoiseSchedule::lookup(const at::Tensor& table, const at::Tensor& timesteps) const {
  const at::Tensor local = table.to(timesteps.device());
  return local.index_select(0, timesteps.reshape({-1}).to(at::kLong)).reshape(timesteps.sizes());
}

at::Tensor NoiseSchedule::signal_scale(const at::Tensor& timesteps) const {
  return lookup(signal_scales_, timesteps);
}

at::Tensor NoiseSchedule::noise_scale(const at::Tensor& timesteps) const {
  return lookup(noise_scales_, timesteps);
}

at::Tensor NoiseSchedule::snr(const at::Tensor& timesteps) const {
  return (signal_scale(timesteps) / noise_scale(timesteps)).square();
}

at::Tensor NoiseSchedule::denoiser_timesteps(const at::Tensor& timesteps) const {
  return is_flow() ? noise_scale(timesteps) * static_cast<double>(num_train_timesteps()) : timesteps;
}

NoiseSchedule::Span NoiseSchedule::timesteps_told(int64_t told_low, int64_t told_high) const {
  if (!is_flow()) return {.low = told_low, .high = told_high};
  const at::Tensor told = sigmas_ * static_cast<double>(num_train_timesteps());
  const auto first_from = [&](int64_t bound) { return (told < bound).sum().item<int64_t>(); };
  const bool is_open = told_high == num_train_timesteps();
  return {.low = first_from(told_low), .high = is_open ? told_high : first_from(told_high)};
}

int64_t NoiseSchedule::timestep_nearest(int64_t told) const {
  if (!is_flow()) return told;
  return (sigmas_ * static_cast<double>(num_train_timesteps()) - told).abs().argmin().item<int64_t>();
}

at::Tensor NoiseSchedule::add_noise(const at::Tensor& latents, const at::Tensor& noise,
                                    const at::Tensor& timesteps) const {
  return broadcast_to(signal_scale(timesteps), latents) * latents +
         broadcast_to(noise_scale(timesteps), latents) * noise;
}

at::Tensor NoiseSchedule::target(const at::Tensor& latents, const at::Tensor& noise,
                                 const at::Tensor& timesteps) const {
  switch (prediction_type()) {
    case PredictionType::kEpsilon: return noise;
    case PredictionType::kSample: return latents;
    case PredictionType::kVPrediction:
      return broadcast_to(signal_scale(timesteps), latents) * noise -
             broadcast_to(noise_scale(timesteps), latents) * latents;
    case PredictionType::kFlow: return noise - latents;
  }
  fail_run("no such prediction type");
}

}  // namespace prefusion::schedulers
