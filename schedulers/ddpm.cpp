#include "schedulers/ddpm.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "schedulers/beta_schedule.h"
#include "schedulers/discrete_prediction.h"
#include "schedulers/sample_limits.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {

DdpmScheduler::DdpmScheduler(const SchedulerConfig& config)
    : Scheduler(resolve_for(config, SchedulerClass::kDdpm)), alphas_cumprod_(make_alphas_cumprod(config_)) {}

void DdpmScheduler::set_timesteps(int64_t num_inference_steps) {
  timesteps_ = spaced_timesteps(config_, num_inference_steps, /*fractional=*/false);
  check_timesteps(config_, timesteps_);
}

// Standard deviation of the noise added, by formula (7) of the paper and the interpolation of "Improved Denoising
// Diffusion Probabilistic Models" (arXiv 2102.09672) where the variance is learned.
at::Tensor DdpmScheduler::deviation(const at::Tensor& alpha, const at::Tensor& alpha_previous,
                                    const at::Tensor& learned) const {
  constexpr double kSmallest = 1e-20;
  const at::Tensor beta = 1 - alpha / alpha_previous;
  const at::Tensor posterior = at::clamp_min((1 - alpha_previous) / (1 - alpha) * beta, kSmallest);
  const std::string& type = *config_.variance_type;
  if (type == "fixed_small_log") return (0.5 * posterior.log()).exp();
  if (type == "fixed_large") return beta.sqrt();
  if (type == "learned" || type == "learned_range") {
    check_run(learned.defined(), "variance_type '", type, "' needs a denoiser with twice the latent channels");
  }
  if (type == "learned") return learned.sqrt();
  if (type == "learned_range") {
    const at::Tensor share = (learned + 1) / 2;
    return (0.5 * (share * beta.log() + (1 - share) * posterior.log())).exp();
  }
  return posterior.sqrt();
}

at::Tensor DdpmScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                               const NoiseSource& noise) {
  at::Tensor mean = prediction;
  at::Tensor learned;
  const bool is_learned = config_.variance_type->starts_with("learned");
  if (is_learned && prediction.size(1) == 2 * sample.size(1)) {
    mean = prediction.narrow(1, 0, sample.size(1));
    learned = prediction.narrow(1, sample.size(1), sample.size(1));
  }
  const auto timestep = static_cast<int64_t>(timesteps_.at(index));
  const at::Tensor alpha = alphas_cumprod_[timestep];
  const at::Tensor alpha_previous = index + 1 < timesteps_.size()
                                        ? alphas_cumprod_[static_cast<int64_t>(timesteps_[index + 1])]
                                        : at::ones({}, at::kFloat);
  const at::Tensor step_alpha = alpha / alpha_previous;

  const at::Tensor clean = limit_sample(
      config_, split_prediction(config_.prediction_type, mean, sample, alpha.sqrt(), (1 - alpha).sqrt()).clean);
  const at::Tensor clean_weight = alpha_previous.sqrt() * (1 - step_alpha) / (1 - alpha);
  const at::Tensor sample_weight = step_alpha.sqrt() * (1 - alpha_previous) / (1 - alpha);
  at::Tensor next = clean_weight * clean + sample_weight * sample;
  if (timestep > 0) next = next + deviation(alpha, alpha_previous, learned) * noise(mean);
  return next;
}

}  // namespace prefusion::schedulers
