#include "schedulers/dpm_solver.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "schedulers/beta_schedule.h"
#include "schedulers/discrete_prediction.h"
#include "schedulers/flow_sigmas.h"
#include "schedulers/per_item.h"
#include "schedulers/sample_limits.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {
namespace {

// How many timesteps have lambda >= limit. Without a limit all: cosine schedules need one for numerical stability.
int64_t last_timestep(const SchedulerConfig& config, const at::Tensor& alphas_cumprod) {
  if (!config.lambda_min_clipped) return config.num_train_timesteps;
  const at::Tensor lambdas = alphas_cumprod.sqrt().log() - (1 - alphas_cumprod).sqrt().log();
  return config.num_train_timesteps - (lambdas < *config.lambda_min_clipped).sum().item<int64_t>();
}

// Divided differences of the newest predictions over lambda, in units of the step h: [m0], [m0, D1] or [m0, D1, D2].
std::vector<at::Tensor> divided_differences(const SchedulerConfig& config, const std::deque<at::Tensor>& history,
                                            const at::Tensor& sigmas, int64_t index, int64_t order,
                                            const at::Tensor& h) {
  if (order == 1) return {history[0]};
  const auto lambda = [&](int64_t i) { return solver_point(config, sigmas[i]).lambda; };
  const at::Tensor ratio0 = (lambda(index) - lambda(index - 1)) / h;
  const at::Tensor first = (1.0 / ratio0) * (history[0] - history[1]);
  if (order == 2) return {history[0], first};
  const at::Tensor ratio1 = (lambda(index - 1) - lambda(index - 2)) / h;
  const at::Tensor second = (1.0 / ratio1) * (history[1] - history[2]);
  const at::Tensor change = first - second;
  return {history[0], first + ratio0 / (ratio0 + ratio1) * change, 1.0 / (ratio0 + ratio1) * change};
}

}  // namespace

DpmSolverScheduler::DpmSolverScheduler(const SchedulerConfig& config)
    : Scheduler(resolve_for(config, SchedulerClass::kDpmSolver)),
      predicts_clean_(config_.algorithm_type.ends_with("++")),
      is_stochastic_(config_.algorithm_type.starts_with("sde")),
      alphas_cumprod_(make_positive_alphas_cumprod(config_)),
      table_(alphas_cumprod_) {}

std::vector<double> DpmSolverScheduler::choose_sigmas(int64_t num_inference_steps) {
  if (config_.use_flow_sigmas) {
    const std::vector<double> sigmas = dpm_flow_sigmas(config_, image_tokens_, num_inference_steps);
    timesteps_ = flow_timesteps(config_, sigmas);
    return sigmas;
  }
  const SigmaRange range = sigma_range(config_, table_.largest(), table_.smallest());
  std::vector<double> sigmas = special_sigmas(config_, range, num_inference_steps);
  bool rounds = config_.use_karras_sigmas;
  if (sigmas.empty() && config_.use_lu_lambdas) {
    // Equal steps in lambda up to its sign ("DPM-Solver", appendix D.4).
    sigmas = linspace(table_.largest_log(), table_.smallest_log(), num_inference_steps);
    for (double& sigma : sigmas) sigma = std::exp(sigma);
    rounds = true;
  }
  if (sigmas.empty()) {
    for (const double timestep : timesteps_) sigmas.push_back(table_.at(timestep));
    return sigmas;
  }
  timesteps_.clear();
  for (const double sigma : sigmas) timesteps_.push_back(table_.timestep_of(sigma));
  if (rounds && config_.beta_schedule != "squaredcos_cap_v2") {
    for (double& timestep : timesteps_) timestep = std::nearbyint(timestep);
  }
  return sigmas;
}

void DpmSolverScheduler::set_timesteps(int64_t num_inference_steps) {
  timesteps_ = solver_timesteps(config_, num_inference_steps, last_timestep(config_, alphas_cumprod_));
  const std::vector<double> sigmas = choose_sigmas(num_inference_steps);
  truncate_timesteps(timesteps_);
  sigmas_ = sigma_tensor(sigmas, config_.final_sigmas_type == "zero" ? 0.0 : table_.smallest());
  history_.clear();
}

InputScales DpmSolverScheduler::input_scales(size_t index) const {
  if (!config_.use_flow_sigmas) return Scheduler::input_scales(index);
  return flow_input_scales(sigmas_, index);
}

at::Tensor DpmSolverScheduler::add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const {
  return noisy_sample(solver_point(config_, sigmas_[static_cast<int64_t>(index)]), clean, noise);
}

at::Tensor DpmSolverScheduler::convert(const at::Tensor& prediction, const at::Tensor& sample,
                                       const SolverPoint& here) const {
  auto [clean, noise] = split_prediction(config_.prediction_type, prediction, sample, here.alpha, here.sigma);
  if (!config_.thresholding) return predicts_clean_ ? clean : noise;
  clean = threshold_sample(config_, clean);
  return predicts_clean_ ? clean : (sample - here.alpha * clean) / here.sigma;
}

// Starts with low orders for want of history, and ends with them where few steps make high orders unstable.
int64_t DpmSolverScheduler::order_at(size_t index) const {
  const size_t count = timesteps_.size();
  const bool is_short = config_.lower_order_final && count < 15;
  const bool is_last = index + 1 == count;
  if (is_last && (config_.euler_at_final || is_short || config_.final_sigmas_type == "zero")) return 1;
  int64_t order = std::min(config_.solver_order, static_cast<int64_t>(history_.size()));
  if (index + 2 == count && is_short) order = std::min<int64_t>(order, 2);
  return order;
}

// The exact solution of the linear part plus the Taylor terms of the prediction over lambda. With x = -h for the form
// that integrates clean latents, h for the one that integrates noise, and -2h for the SDE of the former, the weights of
// the derivatives are e^x - 1, (e^x - 1) / x - 1 and (e^x - 1 - x) / x^2 - 1/2.
at::Tensor DpmSolverScheduler::advance(const at::Tensor& sample, const SolverPoint& from, const SolverPoint& to,
                                       const std::vector<at::Tensor>& differences, const at::Tensor& noise) const {
  const at::Tensor h = to.lambda - from.lambda;
  const bool doubles_exponent = is_stochastic_ && predicts_clean_;
  const bool doubles_weight = is_stochastic_ && !predicts_clean_;
  const at::Tensor x = predicts_clean_ ? (doubles_exponent ? -2.0 : -1.0) * h : h;
  const at::Tensor growth = x.exp() - 1.0;
  const at::Tensor weight = (predicts_clean_ ? to.alpha : to.sigma) * (doubles_weight ? 2.0 : 1.0);

  at::Tensor decay = predicts_clean_ ? to.sigma / from.sigma : to.alpha / from.alpha;
  if (doubles_exponent) decay = decay * (-h).exp();
  at::Tensor next = decay * sample - weight * growth * differences[0];
  if (differences.size() == 2 && *config_.solver_type == "midpoint") {
    next = next - 0.5 * (weight * growth) * differences[1];
  } else if (differences.size() >= 2) {
    next = next - weight * (growth / x - 1.0) * differences[1];
  }
  if (differences.size() == 3) {
    // diffusers adds the half where the SDE's derivation subtracts it; its pictures are what users compare with.
    const double half = doubles_exponent ? 0.5 : -0.5;
    next = next - weight * ((growth - x) / x.square() + half) * differences[2];
  }
  if (!is_stochastic_) return next;
  const at::Tensor spread = predicts_clean_ ? 1.0 - (-2.0 * h).exp() : (2.0 * h).exp() - 1.0;
  return next + to.sigma * spread.sqrt() * noise;
}

at::Tensor DpmSolverScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                                    const NoiseSource& noise) {
  const auto position = static_cast<int64_t>(index);
  const SolverPoint here = solver_point(config_, sigmas_[position]);
  const SolverPoint there = solver_point(config_, sigmas_[position + 1]);
  history_.push_front(convert(prediction, sample, here));
  if (static_cast<int64_t>(history_.size()) > config_.solver_order) history_.pop_back();

  // The update runs in fp32 whatever the model's dtype.
  const at::Tensor wide = sample.to(at::kFloat);
  const at::Tensor drawn = is_stochastic_ ? noise(wide) : at::Tensor();
  const auto differences =
      divided_differences(config_, history_, sigmas_, position, order_at(index), there.lambda - here.lambda);
  return advance(wide, here, there, differences, drawn).to(prediction.scalar_type());
}

void DpmSolverScheduler::keep_items(const at::Tensor& items) {
  for (at::Tensor& prediction : history_) select_items(prediction, items);
}

}  // namespace prefusion::schedulers
