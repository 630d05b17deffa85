#include "schedulers/ddim.h"

#include <ATen/ATen.h>

#include "schedulers/beta_schedule.h"
#include "schedulers/ddim_transition.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {

DdimScheduler::DdimScheduler(const SchedulerConfig& config)
    : Scheduler(resolve_for(config, SchedulerClass::kDdim)), alphas_cumprod_(make_alphas_cumprod(config_)) {
  final_alpha_cumprod_ = *config_.set_alpha_to_one ? at::ones({}, at::kFloat) : alphas_cumprod_[0];
}

void DdimScheduler::set_timesteps(int64_t num_inference_steps) {
  timesteps_ = spaced_timesteps(config_, num_inference_steps, /*fractional=*/false);
  check_timesteps(config_, timesteps_);
  stride_ = config_.num_train_timesteps / num_inference_steps;
}

bool DdimScheduler::has_linear_steps() const {
  return config_.eta == 0 && !config_.thresholding && !*config_.clip_sample;
}

at::Tensor DdimScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                               const NoiseSource& noise) {
  const auto timestep = static_cast<int64_t>(timesteps_.at(index));
  const int64_t previous = timestep - stride_;
  const at::Tensor alpha = alphas_cumprod_[timestep];
  const at::Tensor alpha_previous = previous >= 0 ? alphas_cumprod_[previous] : final_alpha_cumprod_;

  const auto [clean, next, deviation] =
      ddim_transition(config_, prediction, sample, alpha, alpha_previous, config_.eta);
  return config_.eta > 0 ? next + deviation * noise(prediction) : next;
}

}  // namespace prefusion::schedulers
