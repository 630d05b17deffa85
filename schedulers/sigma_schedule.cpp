#include "schedulers/sigma_schedule.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {
namespace {

// Continued fraction of the regularised incomplete beta function I_x(a, b), by Lentz's method.
double beta_continued_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  double c = 1;
  double d = 1 - (a + b) * x / (a + 1);
  d = 1 / (std::fabs(d) < kTiny ? kTiny : d);
  double value = d;
  for (int m = 1; m <= 500; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double change = 1;
    for (const double term : {even, odd}) {
      d = 1 + term * d;
      d = 1 / (std::fabs(d) < kTiny ? kTiny : d);
      c = 1 + term / c;
      if (std::fabs(c) < kTiny) c = kTiny;
      change = c * d;
      value *= change;
    }
    if (std::fabs(change - 1) < 1e-16) break;
  }
  return value;
}

double beta_distribution(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * beta_continued_fraction(a, b, x) / a;
  return 1 - front * beta_continued_fraction(b, a, 1 - x) / b;
}

// Where Beta(a, b) has the share `probability` below it, by bisection.
double beta_quantile(double probability, double a, double b) {
  if (probability <= 0) return 0;
  if (probability >= 1) return 1;
  double low = 0;
  double high = 1;
  while (true) {
    const double middle = 0.5 * (low + high);
    if (middle <= low || middle >= high) return middle;
    (beta_distribution(a, b, middle) < probability ? low : high) = middle;
    if (high - low < 1e-16) return middle;
  }
}

}  // namespace

SigmaTable::SigmaTable(const at::Tensor& alphas_cumprod) {
  const at::Tensor sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().contiguous();
  sigmas_.assign(sigmas.data_ptr<float>(), sigmas.data_ptr<float>() + sigmas.numel());
  log_sigmas_.resize(sigmas_.size());
  std::transform(sigmas_.begin(), sigmas_.end(), log_sigmas_.begin(),
                 [](float sigma) { return static_cast<float>(std::log(static_cast<double>(sigma))); });
}

double SigmaTable::at(double timestep) const {
  if (timestep <= 0) return sigmas_.front();
  if (timestep >= static_cast<double>(sigmas_.size() - 1)) return sigmas_.back();
  const auto low = static_cast<size_t>(timestep);
  const double fraction = timestep - static_cast<double>(low);
  const double base = sigmas_[low];
  return fraction == 0 ? base : (static_cast<double>(sigmas_[low + 1]) - base) * fraction + base;
}

double SigmaTable::timestep_of(double sigma) const {
  if (sigmas_.size() < 2) return 0;
  const double log_sigma = std::log(std::max(sigma, 1e-10));
  const auto above = std::upper_bound(log_sigmas_.begin(), log_sigmas_.end(), log_sigma);
  const auto index = above == log_sigmas_.begin() ? size_t{0} : static_cast<size_t>(above - log_sigmas_.begin()) - 1;
  const size_t low = std::min(index, log_sigmas_.size() - 2);
  // The difference of two table entries is an fp32 one.
  const float gap = log_sigmas_[low] - log_sigmas_[low + 1];
  const double weight = std::clamp((static_cast<double>(log_sigmas_[low]) - log_sigma) / gap, 0.0, 1.0);
  return (1 - weight) * static_cast<double>(low) + weight * static_cast<double>(low + 1);
}

std::vector<double> SigmaTable::karras(double sigma_max, double sigma_min, int64_t count) {
  constexpr double kRho = 7.0;
  const double first = std::pow(sigma_max, 1 / kRho);
  const double last = std::pow(sigma_min, 1 / kRho);
  std::vector<double> values = linspace(0, 1, count);
  for (double& value : values) value = std::pow(first + value * (last - first), kRho);
  return values;
}

std::vector<double> SigmaTable::exponential(double sigma_max, double sigma_min, int64_t count) {
  std::vector<double> values = linspace(std::log(sigma_max), std::log(sigma_min), count);
  for (double& value : values) value = std::exp(value);
  return values;
}

std::vector<double> SigmaTable::beta_quantiles(double sigma_max, double sigma_min, int64_t count) {
  std::vector<double> values = linspace(0, 1, count);
  for (double& value : values) value = sigma_min + beta_quantile(1 - value, 0.6, 0.6) * (sigma_max - sigma_min);
  return values;
}

SigmaRange sigma_range(const SchedulerConfig& config, double largest, double smallest) {
  return {config.sigma_max.value_or(largest), config.sigma_min.value_or(smallest)};
}

std::vector<double> special_sigmas(const SchedulerConfig& config, SigmaRange range, int64_t count) {
  if (config.use_karras_sigmas) return SigmaTable::karras(range.max, range.min, count);
  if (config.use_exponential_sigmas) return SigmaTable::exponential(range.max, range.min, count);
  if (config.use_beta_sigmas) return SigmaTable::beta_quantiles(range.max, range.min, count);
  return {};
}

}  // namespace prefusion::schedulers
