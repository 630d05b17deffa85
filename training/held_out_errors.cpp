#include "training/held_out_errors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/statistics.h"

namespace prefusion::training {
namespace {

constexpr int kBins = 10;

// What calibration is made of: predictions by confidence.
struct Bins {
  std::array<double, kBins> confidence{}, correct{};
  double count = 0;

  // `probability` that an item is the better one, which it is with probability `truth`.
  void add(double probability, double truth) {
    const double confidence_now = std::max(probability, 1 - probability);
    const auto bin = std::min(kBins - 1, static_cast<int>((confidence_now - 0.5) * 2 * kBins));
    confidence[bin] += confidence_now;
    correct[bin] += probability == 0.5 ? 0.5 : probability > 0.5 ? truth : 1 - truth;
    count += 1;
  }
  double error() const {
    double sum = 0;
    for (int bin = 0; bin < kBins; ++bin) sum += std::abs(confidence[bin] - correct[bin]);
    return sum / count;
  }
};

// The probability that item i is better than item j of group n; below 1/2 for pairs that are not asked.
double truth_of(const HeldOutErrors& held_out, int64_t n, int64_t i, int64_t j) {
  if (!held_out.labels.defined()) return i < j ? 1.0 : 0.0;
  const auto label = held_out.labels.accessor<double, 2>();
  if (held_out.items_per_group() == 2) return i < j ? label[n][0] : 0.0;
  return label[n][i] > label[n][j] ? 1.0 : 0.0;
}

// Mean of `values` [N, k] over the items of `mask`.
double masked_mean(const at::Tensor& values, const at::Tensor& mask) {
  return values.masked_select(mask).mean().item<double>();
}

// Errors and drifts of the items of `mask`, under names that end in `name`.
void add_errors(const HeldOutErrors& held_out, const std::string& name, const at::Tensor& mask, Metrics& metrics) {
  if (!mask.any().item<bool>()) return;
  const auto drift = [&](const at::Tensor& error, const at::Tensor& error_ref) {
    return masked_mean(error, mask) / masked_mean(error_ref, mask) - 1;
  };
  metrics["drift_" + name] = drift(held_out.error.mean(0), held_out.error_ref.mean(0));
  for (size_t band = 0; band < held_out.timesteps.size(); ++band) {
    const at::Tensor error = held_out.error[static_cast<int64_t>(band)];
    metrics[concat("error_", name, "_band", band)] = masked_mean(error, mask);
    metrics[concat("drift_", name, "_band", band)] = drift(error, held_out.error_ref[static_cast<int64_t>(band)]);
  }
}

void add_displacement(const HeldOutErrors& held_out, const at::Tensor& chosen, Metrics& metrics) {
  if (!chosen.any().item<bool>()) return;
  const at::Tensor rises = (held_out.error.mean(0) > held_out.error_ref.mean(0)).masked_select(chosen);
  const auto share = wilson_proportion(rises.sum().item<double>(), static_cast<double>(rises.numel()));
  metrics["displaced"] = share.rate;
  metrics["displaced_low"] = share.low;
}

}  // namespace

at::Tensor chosen_mask(const HeldOutErrors& held_out) {
  at::Tensor mask = at::zeros(held_out.error[0].sizes(), at::kBool);
  if (held_out.items_per_group() == 1 && held_out.labels.defined()) return held_out.labels > 0.5;
  mask.select(1, 0).fill_(true);
  return mask;
}

at::Tensor rejected_mask(const HeldOutErrors& held_out) {
  at::Tensor mask = at::zeros(held_out.error[0].sizes(), at::kBool);
  if (held_out.items_per_group() == 1) return held_out.labels.defined() ? held_out.labels <= 0.5 : mask;
  mask.select(1, -1).fill_(true);
  return mask;
}

at::Tensor implicit_rewards(const HeldOutErrors& held_out, const losses::ObjectiveInfo& info, double kappa) {
  const at::Tensor reward = info.needs_reference ? held_out.error_ref - held_out.error : -held_out.error;
  return info.has_kappa() ? reward * kappa : reward;
}

double calibration_error(const HeldOutErrors& held_out, const losses::ObjectiveInfo& info, double kappa) {
  const int64_t k = held_out.items_per_group();
  if (!info.has_kappa() || k == 1) return std::numeric_limits<double>::quiet_NaN();
  const at::Tensor rewards = implicit_rewards(held_out, info, kappa).contiguous();
  const auto reward = rewards.accessor<double, 3>();
  Bins bins;
  for (int64_t g = 0; g < reward.size(0); ++g) {
    for (int64_t n = 0; n < reward.size(1); ++n) {
      for (int64_t i = 0; i < k; ++i) {
        for (int64_t j = 0; j < k; ++j) {
          const double truth = truth_of(held_out, n, i, j);
          if (truth >= 0.5) bins.add(1 / (1 + std::exp(reward[g][n][j] - reward[g][n][i])), truth);
        }
      }
    }
  }
  return bins.error();
}

Metrics held_out_metrics(const HeldOutErrors& held_out, const losses::ObjectiveInfo& info, double kappa) {
  Metrics metrics;
  const at::Tensor chosen = chosen_mask(held_out);
  add_errors(held_out, "chosen", chosen, metrics);
  add_errors(held_out, "rejected", rejected_mask(held_out), metrics);
  add_displacement(held_out, chosen, metrics);
  const double calibration = calibration_error(held_out, info, kappa);
  if (std::isfinite(calibration)) metrics["ece"] = calibration;
  return metrics;
}

}  // namespace prefusion::training
