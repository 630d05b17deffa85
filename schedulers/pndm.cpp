#include "schedulers/pndm.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "schedulers/beta_schedule.h"
#include "schedulers/per_item.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {
namespace {

constexpr size_t kOrder = 4;

// The denoiser calls of three Runge-Kutta steps over the four highest timesteps (descending): each at the start, twice
// half way and at the end.
std::vector<double> runge_kutta_timesteps(const std::vector<double>& descending, int64_t half_stride) {
  std::vector<double> calls;
  for (size_t i = 0; i + 1 < kOrder; ++i) {
    const double half = descending[i + 1] + static_cast<double>(half_stride);
    calls.insert(calls.end(), {descending[i], half, half, descending[i + 1]});
  }
  return calls;
}

}  // namespace

PndmScheduler::PndmScheduler(const SchedulerConfig& config)
    : Scheduler(resolve_for(config, SchedulerClass::kPndm)), alphas_cumprod_(make_alphas_cumprod(config_)) {
  final_alpha_cumprod_ = *config_.set_alpha_to_one ? at::ones({}, at::kFloat) : alphas_cumprod_[0];
}

void PndmScheduler::set_timesteps(int64_t num_inference_steps) {
  std::vector<double> spaced = spaced_timesteps(config_, num_inference_steps, /*fractional=*/false);
  check_timesteps(config_, spaced);
  stride_ = config_.num_train_timesteps / num_inference_steps;
  if (config_.skip_prk_steps) {
    // The second timestep is visited twice: the first step is taken again with the average of both ends.
    timesteps_ = spaced;
    if (spaced.size() > 1) timesteps_.insert(timesteps_.begin() + 1, spaced[1]);
    num_runge_kutta_calls_ = 0;
  } else {
    check_usage(spaced.size() >= kOrder, "pndm with Runge-Kutta steps (skip_prk_steps false) needs at least ", kOrder,
                " sampling steps, found ", num_inference_steps);
    timesteps_ = runge_kutta_timesteps(spaced, stride_ / 2);
    num_runge_kutta_calls_ = timesteps_.size();
    timesteps_.insert(timesteps_.end(), spaced.begin() + (kOrder - 1), spaced.end());
  }
  history_.clear();
  weighted_sum_ = at::Tensor();
  start_ = at::Tensor();
}

// Formula (9) of the paper: moves a sample from one timestep to another along a prediction of the noise.
at::Tensor PndmScheduler::transfer(const at::Tensor& sample, int64_t from, int64_t to,
                                   const at::Tensor& prediction) const {
  const at::Tensor alpha = alphas_cumprod_[from];
  const at::Tensor alpha_to = to >= 0 ? alphas_cumprod_[to] : final_alpha_cumprod_;
  at::Tensor noise = prediction;
  if (config_.prediction_type == PredictionType::kVPrediction) {
    noise = alpha.sqrt() * prediction + (1 - alpha).sqrt() * sample;
  }
  const at::Tensor denominator = alpha * (1 - alpha_to).sqrt() + (alpha * (1 - alpha) * alpha_to).sqrt();
  return (alpha_to / alpha).sqrt() * sample - (alpha_to - alpha) * noise / denominator;
}

// Which formula a call takes depends on how many were made before it. Where a schedule is cut, diffusers starts
// Runge-Kutta steps from the whole schedule's timesteps; its pictures are what users compare with.
at::Tensor PndmScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                               const NoiseSource&) {
  return index - begin_ < num_runge_kutta_calls_ ? runge_kutta_step(prediction, index, sample)
                                                 : multistep_step(prediction, index, sample);
}

at::Tensor PndmScheduler::runge_kutta_step(const at::Tensor& prediction, size_t index, const at::Tensor& sample) {
  const size_t num_made = index - begin_;
  const size_t stage = num_made % 4;
  at::Tensor direction = prediction;
  if (stage == 0) {
    weighted_sum_ = 1.0 / 6 * prediction;
    history_.push_front(prediction);
    start_ = sample;
  } else if (stage < 3) {
    weighted_sum_ = weighted_sum_ + 1.0 / 3 * prediction;
  } else {
    direction = weighted_sum_ + 1.0 / 6 * prediction;
  }
  const auto from = static_cast<int64_t>(timesteps_[num_made - stage]);
  const auto here = static_cast<int64_t>(timesteps_[index]);
  return transfer(start_, from, stage % 2 == 0 ? here - stride_ / 2 : here, direction);
}

at::Tensor PndmScheduler::multistep_step(const at::Tensor& prediction, size_t index, const at::Tensor& sample) {
  auto from = static_cast<int64_t>(timesteps_.at(index));
  int64_t to = from - stride_;
  if (index - begin_ == 1) {
    // Once more from the start, now with the average of the predictions at both ends.
    to = from;
    from += stride_;
    return transfer(start_, from, to, (prediction + history_[0]) / 2);
  }
  history_.push_front(prediction);
  if (history_.size() > kOrder) history_.pop_back();
  at::Tensor direction = prediction;
  const auto& h = history_;
  switch (h.size()) {
    case 1: start_ = sample; break;
    case 2: direction = (3 * h[0] - h[1]) / 2; break;
    case 3: direction = (23 * h[0] - 16 * h[1] + 5 * h[2]) / 12; break;
    default: direction = 1.0 / 24 * (55 * h[0] - 59 * h[1] + 37 * h[2] - 9 * h[3]); break;
  }
  return transfer(sample, from, to, direction);
}

void PndmScheduler::keep_items(const at::Tensor& items) {
  for (at::Tensor& prediction : history_) select_items(prediction, items);
  select_items(weighted_sum_, items);
  select_items(start_, items);
}

}  // namespace prefusion::schedulers
