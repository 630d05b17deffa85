#include "schedulers/beta_schedule.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/error.h"

namespace prefusion::schedulers {
namespace {

// Continuous abar(t) over t in [0, 1].
double cosine_alpha_bar(double t) {
  return std::pow(std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2), 2);
}

double exponential_alpha_bar(double t) {
  return std::exp(t * -12.0);
}

double laplace_alpha_bar(double t) {
  const double lambda = -0.5 * std::copysign(1.0, 0.5 - t) * std::log(1 - 2 * std::fabs(0.5 - t) + 1e-6);
  const double snr = std::exp(lambda);
  return std::sqrt(snr / (1 + snr));
}

at::Tensor betas_from_list(const std::vector<double>& values) {
  at::Tensor betas = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  std::transform(values.begin(), values.end(), betas.data_ptr<float>(), [](double v) { return static_cast<float>(v); });
  return betas;
}

at::Tensor betas_from_alpha_bar(double (*alpha_bar)(double), int64_t num_train_timesteps) {
  constexpr double kMaxBeta = 0.999;
  const double count = static_cast<double>(num_train_timesteps);
  std::vector<double> betas;
  for (int64_t i = 0; i < num_train_timesteps; ++i) {
    const double ratio = alpha_bar(static_cast<double>(i + 1) / count) / alpha_bar(static_cast<double>(i) / count);
    betas.push_back(std::min(1 - ratio, kMaxBeta));
  }
  return betas_from_list(betas);
}

at::Tensor make_betas(const SchedulerConfig& config) {
  const int64_t count = config.num_train_timesteps;
  const double start = *config.beta_start;
  const double end = *config.beta_end;
  if (config.trained_betas) return betas_from_list(*config.trained_betas);
  if (config.beta_schedule == "linear") return at::linspace(start, end, count, at::kFloat);
  if (config.beta_schedule == "scaled_linear") {
    return at::linspace(std::sqrt(start), std::sqrt(end), count, at::kFloat).square();
  }
  if (config.beta_schedule == "squaredcos_cap_v2") return betas_from_alpha_bar(cosine_alpha_bar, count);
  if (config.beta_schedule == "laplace") return betas_from_alpha_bar(laplace_alpha_bar, count);
  if (config.beta_schedule == "exp") return betas_from_alpha_bar(exponential_alpha_bar, count);
  if (config.beta_schedule == "sigmoid") {
    return at::sigmoid(at::linspace(-6, 6, count, at::kFloat)) * (end - start) + start;
  }
  fail_input(config.where, ": 'beta_schedule' = \"", *config.beta_schedule, "\" is not supported");
}

// Shifts and scales sqrt(abar) so that the last is zero and the first stays (arXiv 2305.08891, algorithm 1).
at::Tensor rescale_to_zero_terminal_snr(const at::Tensor& betas) {
  const at::Tensor roots = (1.0 - betas).cumprod(0).sqrt();
  const at::Tensor first = roots[0];
  const at::Tensor last = roots[-1];
  const at::Tensor products = ((roots - last) * (first / (first - last))).square();
  const at::Tensor ratios = products.slice(0, 1) / products.slice(0, 0, -1);
  return 1 - at::cat({products.slice(0, 0, 1), ratios});
}

}  // namespace

at::Tensor make_alphas_cumprod(const SchedulerConfig& resolved) {
  const at::NoGradGuard no_grad;
  at::Tensor betas = make_betas(resolved);
  if (resolved.rescale_betas_zero_snr) betas = rescale_to_zero_terminal_snr(betas);
  return (1.0 - betas).cumprod(0);
}

at::Tensor make_positive_alphas_cumprod(const SchedulerConfig& resolved) {
  at::Tensor alphas_cumprod = make_alphas_cumprod(resolved);
  // The smallest positive fp16 number: the first sigma stays finite.
  if (resolved.rescale_betas_zero_snr) alphas_cumprod[-1].fill_(std::ldexp(1.0, -24));
  return alphas_cumprod;
}

}  // namespace prefusion::schedulers
