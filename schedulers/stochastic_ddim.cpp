#include "schedulers/stochastic_ddim.h"

#include <ATen/ATen.h>

#include "schedulers/beta_schedule.h"
#include "schedulers/ddim_transition.h"
#include "schedulers/discrete_prediction.h"
#include "schedulers/per_item.h"
#include "schedulers/sample_limits.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {

StochasticDdim::StochasticDdim(const SchedulerConfig& config)
    : config_(resolve_for(config, SchedulerClass::kDdim)), alphas_cumprod_(make_alphas_cumprod(config_)) {
  final_alpha_cumprod_ = *config_.set_alpha_to_one ? at::ones({}, at::kFloat) : alphas_cumprod_[0];
}

std::vector<DdimStep> StochasticDdim::steps(int64_t num_inference_steps) const {
  const std::vector<double> timesteps = spaced_timesteps(config_, num_inference_steps, /*fractional=*/false);
  check_timesteps(config_, timesteps);
  const int64_t stride = config_.num_train_timesteps / num_inference_steps;
  const auto alpha = [&](int64_t timestep) {
    return (timestep < 0 ? final_alpha_cumprod_ : alphas_cumprod_[timestep]).item<float>();
  };
  std::vector<DdimStep> steps;
  for (const double value : timesteps) {
    const auto timestep = static_cast<int64_t>(value);
    const int64_t previous = timestep - stride;
    const bool has_variance = alpha(previous) < 1 && alpha(timestep) < alpha(previous);
    steps.push_back({.timestep = timestep, .previous_timestep = previous, .has_variance = has_variance});
  }
  return steps;
}

at::Tensor StochasticDdim::alphas(const at::Tensor& timesteps, const at::Tensor& sample) const {
  return alphas_at(alphas_cumprod_, timesteps, final_alpha_cumprod_, sample);
}

GaussianStep StochasticDdim::step(const at::Tensor& prediction, const at::Tensor& sample, const at::Tensor& timesteps,
                                  const at::Tensor& previous_timesteps, double eta) const {
  const at::ScalarType dtype = wide_type(prediction);
  const at::Tensor wide_sample = sample.to(dtype);
  const DdimTransition transition =
      ddim_transition(config_, prediction.to(dtype), wide_sample, alphas(timesteps, wide_sample),
                      alphas(previous_timesteps, wide_sample), eta);
  return {.mean = transition.mean, .std = transition.deviation.reshape(timesteps.sizes())};
}

at::Tensor StochasticDdim::predict_clean(const at::Tensor& prediction, const at::Tensor& sample,
                                         const at::Tensor& timesteps) const {
  const at::ScalarType dtype = wide_type(prediction);
  const at::Tensor wide_sample = sample.to(dtype);
  const at::Tensor alpha = alphas(timesteps, wide_sample);
  return limit_sample(config_, split_prediction(config_.prediction_type, prediction.to(dtype), wide_sample,
                                                alpha.sqrt(), (1 - alpha).sqrt())
                                   .clean);
}

}  // namespace prefusion::schedulers
