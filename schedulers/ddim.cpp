#include "schedulers/ddim.h"

#include <ATen/ATen.h>

#include "schedulers/beta_schedule.h"
#include "schedulers/discrete_prediction.h"
#include "schedulers/sample_limits.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {

DdimScheduler::DdimScheduler(const SchedulerConfig& config)
    : config_(resolve_for(config, SchedulerClass::kDdim)), alphas_cumprod_(make_alphas_cumprod(config_)) {
  final_alpha_cumprod_ = *config_.set_alpha_to_one ? at::ones({}, at::kFloat) : alphas_cumprod_[0];
}

void DdimScheduler::set_timesteps(int64_t num_inference_steps) {
  timesteps_ = spaced_timesteps(config_, num_inference_steps, /*fractional=*/false);
  check_timesteps(config_, timesteps_);
  stride_ = config_.num_train_timesteps / num_inference_steps;
}

at::Tensor DdimScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                               const NoiseSource& noise) {
  const auto timestep = static_cast<int64_t>(timesteps_.at(index));
  const int64_t previous = timestep - stride_;
  const at::Tensor alpha = alphas_cumprod_[timestep];
  const at::Tensor alpha_previous = previous >= 0 ? alphas_cumprod_[previous] : final_alpha_cumprod_;

  const auto [clean, direction] =
      split_prediction(config_.prediction_type, prediction, sample, alpha.sqrt(), (1 - alpha).sqrt());
  const at::Tensor limited = limit_sample(config_, clean);

  // Formulas (12) and (16) of the paper.
  const at::Tensor variance = (1 - alpha_previous) / (1 - alpha) * (1 - alpha / alpha_previous);
  const at::Tensor deviation = config_.eta * variance.sqrt();
  at::Tensor next = alpha_previous.sqrt() * limited + (1 - alpha_previous - deviation.square()).sqrt() * direction;
  if (config_.eta > 0) next = next + deviation * noise(prediction);
  return next;
}

}  // namespace prefusion::schedulers
