#include "training/auto_kappa.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

namespace prefusion::training {
namespace {

constexpr double kDecay = 0.99;
constexpr double kLargestFactor = 100;

}  // namespace

double AutoKappa::observe(const losses::GroupErrors& errors) {
  at::NoGradGuard no_grad;
  at::Tensor improvement = -errors.error.detach();
  if (errors.error_ref.defined()) improvement = improvement + errors.error_ref;
  const at::Tensor difference = improvement.select(1, 0) - improvement.select(1, improvement.size(1) - 1);
  const double mean = difference.abs().mean().item<double>();
  if (mean > 0 && std::isfinite(mean)) mean_ = mean_ > 0 ? kDecay * mean_ + (1 - kDecay) * mean : mean;
  return kappa();
}

double AutoKappa::kappa() const {
  if (mean_ <= 0) return start_;
  return std::clamp(std::log((1 - target_) / target_) / mean_, start_ / kLargestFactor, start_ * kLargestFactor);
}

Json AutoKappa::state() const {
  return {{"mean", mean_}};
}

double AutoKappa::load_state(const Json& state) {
  mean_ = state.at("mean").get<double>();
  return kappa();
}

}  // namespace prefusion::training
