#include "schedulers/lcm.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "schedulers/beta_schedule.h"
#include "schedulers/discrete_prediction.h"
#include "schedulers/sample_limits.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {
namespace {

// The standard deviation of data that the boundary condition is written for.
constexpr double kSigmaData = 0.5;

}  // namespace

LcmScheduler::LcmScheduler(const SchedulerConfig& config)
    : Scheduler(resolve_for(config, SchedulerClass::kLcm)), alphas_cumprod_(make_alphas_cumprod(config_)) {}

void LcmScheduler::set_timesteps(int64_t num_inference_steps) {
  check_num_inference_steps(config_, num_inference_steps);
  const int64_t count = config_.original_inference_steps;
  check_usage(num_inference_steps <= count, "the lcm sampler takes at most 'original_inference_steps' = ", count,
              " steps, found ", num_inference_steps);
  const int64_t stride = config_.num_train_timesteps / count;
  const double spacing = static_cast<double>(count) / static_cast<double>(num_inference_steps);
  timesteps_.clear();
  for (int64_t i = 0; i < num_inference_steps; ++i) {
    const auto skipped = static_cast<int64_t>(std::floor(static_cast<double>(i) * spacing));
    timesteps_.push_back(static_cast<double>((count - skipped) * stride - 1));
  }
}

at::Tensor LcmScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                              const NoiseSource& noise) {
  const double timestep = timesteps_.at(index);
  const at::Tensor alpha = alphas_cumprod_[static_cast<int64_t>(timestep)];
  const at::Tensor clean = limit_sample(
      config_, split_prediction(config_.prediction_type, prediction, sample, alpha.sqrt(), (1 - alpha).sqrt()).clean);
  // The boundary condition: at timestep 0 the sample is its own prediction.
  const double scaled = timestep * config_.timestep_scaling;
  const double variance = scaled * scaled + kSigmaData * kSigmaData;
  const at::Tensor denoised = scaled / std::sqrt(variance) * clean + kSigmaData * kSigmaData / variance * sample;
  if (index + 1 == timesteps_.size()) return denoised;
  const at::Tensor next_alpha = alphas_cumprod_[static_cast<int64_t>(timesteps_[index + 1])];
  return next_alpha.sqrt() * denoised + (1 - next_alpha).sqrt() * noise(denoised);
}

}  // namespace prefusion::schedulers
