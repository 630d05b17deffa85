#include "schedulers/sigma_schedulers.h"

#include <ATen/ATen.h>

#include <cmath>

#include "schedulers/beta_schedule.h"
#include "schedulers/per_item.h"
#include "schedulers/sample_limits.h"
#include "schedulers/solver_point.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {

SigmaScheduler::SigmaScheduler(const SchedulerConfig& resolved)
    : Scheduler(resolved), table_(make_positive_alphas_cumprod(resolved)) {}

double SigmaScheduler::init_noise_sigma() const {
  const at::Tensor largest = sigmas_.max();
  if (*config_.timestep_spacing != "leading") return largest.item<double>();
  return (largest.square() + 1).sqrt().item<double>();
}

at::Tensor SigmaScheduler::scale_model_input(const at::Tensor& sample, size_t index) const {
  return sample / (sigmas_[static_cast<int64_t>(index)].square() + 1).sqrt();
}

InputScales SigmaScheduler::input_scales(size_t index) const {
  const double sigma = sigmas_[static_cast<int64_t>(index)].item<double>();
  const double signal = 1 / std::sqrt(1 + sigma * sigma);
  return {.signal = signal, .noise = signal * sigma};
}

at::Tensor SigmaScheduler::add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const {
  return clean + noise * sigmas_[static_cast<int64_t>(index)];
}

std::vector<double> SigmaScheduler::spaced_sigmas(int64_t num_inference_steps) {
  timesteps_ = spaced_timesteps(config_, num_inference_steps, /*fractional=*/true);
  std::vector<double> sigmas;
  for (double& timestep : timesteps_) {
    timestep = static_cast<float>(timestep);
    sigmas.push_back(table_.at(timestep));
  }
  return sigmas;
}

at::Tensor SigmaScheduler::predict_clean(const at::Tensor& prediction, const at::Tensor& sample,
                                         const at::Tensor& sigma) const {
  switch (config_.prediction_type) {
    case PredictionType::kSample: return prediction;
    case PredictionType::kVPrediction: {
      const at::Tensor variance = sigma.square() + 1;
      return prediction * (-sigma / variance.sqrt()) + sample / variance;
    }
    default: return sample - sigma * prediction;
  }
}

EulerScheduler::EulerScheduler(const SchedulerConfig& config)
    : SigmaScheduler(resolve_for(config, SchedulerClass::kEuler)) {}

void EulerScheduler::set_timesteps(int64_t num_inference_steps) {
  std::vector<double> sigmas = spaced_sigmas(num_inference_steps);
  if (config_.interpolation_type == "log_linear") {
    // One sigma more than there are timesteps: the smallest is a step of its own before the final one.
    const at::Tensor logs =
        at::linspace(table_.largest_log(), table_.smallest_log(), num_inference_steps + 1, at::kFloat);
    const at::Tensor values = logs.exp().to(at::kDouble).contiguous();
    sigmas.assign(values.data_ptr<double>(), values.data_ptr<double>() + values.numel());
  }
  const SigmaRange range = sigma_range(config_, sigmas.front(), sigmas.back());
  if (const auto special = special_sigmas(config_, range, num_inference_steps); !special.empty()) {
    sigmas = special;
    timesteps_.clear();
    for (const double sigma : sigmas) timesteps_.push_back(static_cast<float>(table_.timestep_of(sigma)));
  }
  sigmas_ = sigma_tensor(sigmas, config_.final_sigmas_type == "zero" ? 0.0 : table_.smallest());
  if (config_.timestep_type == "continuous" && config_.prediction_type == PredictionType::kVPrediction) {
    timesteps_.clear();
    const at::Tensor logs = (0.25 * sigmas_.slice(0, 0, -1).log()).contiguous();
    for (int64_t i = 0; i < logs.numel(); ++i) timesteps_.push_back(logs.data_ptr<float>()[i]);
  }
}

at::Tensor EulerScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                                const NoiseSource&) {
  const auto position = static_cast<int64_t>(index);
  const at::Tensor wide = sample.to(at::kFloat);
  const at::Tensor sigma = sigmas_[position];
  const at::Tensor derivative = (wide - predict_clean(prediction, wide, sigma)) / sigma;
  return (wide + derivative * (sigmas_[position + 1] - sigma)).to(prediction.scalar_type());
}

EulerAncestralScheduler::EulerAncestralScheduler(const SchedulerConfig& config)
    : SigmaScheduler(resolve_for(config, SchedulerClass::kEulerAncestral)) {}

void EulerAncestralScheduler::set_timesteps(int64_t num_inference_steps) {
  sigmas_ = sigma_tensor(spaced_sigmas(num_inference_steps), 0.0);
}

at::Tensor EulerAncestralScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                                         const NoiseSource& noise) {
  const auto position = static_cast<int64_t>(index);
  const at::Tensor wide = sample.to(at::kFloat);
  const at::Tensor sigma = sigmas_[position];
  const at::Tensor target = sigmas_[position + 1];
  const at::Tensor up = (target.square() * (sigma.square() - target.square()) / sigma.square()).sqrt();
  const at::Tensor down = (target.square() - up.square()).sqrt();
  const at::Tensor derivative = (wide - predict_clean(prediction, wide, sigma)) / sigma;
  const at::Tensor next = wide + derivative * (down - sigma) + noise(prediction) * up;
  return next.to(prediction.scalar_type());
}

HeunScheduler::HeunScheduler(const SchedulerConfig& config)
    : SigmaScheduler(resolve_for(config, SchedulerClass::kHeun)) {}

void HeunScheduler::set_timesteps(int64_t num_inference_steps) {
  std::vector<double> sigmas = spaced_sigmas(num_inference_steps);
  const SigmaRange range = sigma_range(config_, sigmas.front(), sigmas.back());
  if (const auto special = special_sigmas(config_, range, num_inference_steps); !special.empty()) {
    sigmas = special;
    timesteps_.clear();
    for (const double sigma : sigmas) timesteps_.push_back(static_cast<float>(table_.timestep_of(sigma)));
  }
  // Every point but the first is visited twice: at the end of one step and at the start of the next.
  std::vector<double> doubled_sigmas = {sigmas.front()};
  std::vector<double> doubled_timesteps = {timesteps_.front()};
  for (size_t i = 1; i < timesteps_.size(); ++i) {
    doubled_sigmas.insert(doubled_sigmas.end(), 2, sigmas[i]);
    doubled_timesteps.insert(doubled_timesteps.end(), 2, timesteps_[i]);
  }
  timesteps_ = doubled_timesteps;
  sigmas_ = sigma_tensor(doubled_sigmas, 0.0);
  first_derivative_ = at::Tensor();
  start_ = at::Tensor();
}

at::Tensor HeunScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                               const NoiseSource&) {
  const auto position = static_cast<int64_t>(index);
  const bool is_second_call = first_derivative_.defined();
  const at::Tensor here = sigmas_[position];
  const at::Tensor clean = predict_clean(prediction, sample, here);
  const at::Tensor limited =
      *config_.clip_sample ? at::clamp(clean, -config_.clip_sample_range, config_.clip_sample_range) : clean;
  const at::Tensor derivative = (sample - limited) / here;
  if (!is_second_call) {
    first_derivative_ = derivative;
    start_ = sample;
    return sample + derivative * (sigmas_[position + 1] - here);
  }
  const at::Tensor next = start_ + (first_derivative_ + derivative) / 2 * (here - sigmas_[position - 1]);
  first_derivative_ = at::Tensor();
  start_ = at::Tensor();
  return next;
}

void HeunScheduler::keep_items(const at::Tensor& items) {
  select_items(first_derivative_, items);
  select_items(start_, items);
}

}  // namespace prefusion::schedulers
