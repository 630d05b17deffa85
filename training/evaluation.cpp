#include "training/evaluation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/statistics.h"

namespace prefusion::training {

HeldOutEvaluation::HeldOutEvaluation(std::vector<EncodedBatch> batches, int64_t num_train_timesteps,
                                     int64_t num_timesteps)
    : batches_(std::move(batches)) {
  for (int64_t band = 0; band < num_timesteps; ++band) {
    grid_.push_back(num_train_timesteps * (2 * band + 1) / (2 * num_timesteps));
  }
}

int64_t HeldOutEvaluation::num_groups() const {
  int64_t count = 0;
  for (const auto& batch : batches_) count += batch.size();
  return count;
}

at::Tensor HeldOutEvaluation::timesteps(const EncodedBatch& batch, size_t band) const {
  return at::full({batch.size()}, grid_[band], batch.mean.options().dtype(at::kLong));
}

void HeldOutEvaluation::set_baseline(const TrainStep& step, bool reference_moves) {
  const bool uses_reference = step.has_reference() && !reference_moves;
  for (size_t band = 0; band < grid_.size(); ++band) {
    for (const auto& batch : batches_) {
      const at::Tensor at_band = timesteps(batch, band);
      baseline_.push_back(uses_reference ? step.reference_errors(batch, at_band) : step.policy_errors(batch, at_band));
    }
  }
}

namespace {

// Sums over groups, turned into means at the end.
struct Sums {
  std::map<std::string, double> values;
  int64_t groups = 0;

  void add(const losses::LossOutput& output, int64_t count) {
    if (output.loss.defined()) values["loss"] += output.loss.item<double>() * static_cast<double>(count);
    for (const auto& [name, value] : output.metrics) values[name] += value.item<double>() * static_cast<double>(count);
    groups += count;
  }
  double mean(const std::string& name) const { return values.at(name) / static_cast<double>(groups); }
};

}  // namespace

Metrics HeldOutEvaluation::measure(const TrainStep& step) {
  at::NoGradGuard no_grad;
  Metrics metrics;
  Sums all;
  size_t cell = 0;
  for (size_t band = 0; band < grid_.size(); ++band) {
    Sums sums;
    for (const auto& batch : batches_) {
      const losses::LossOutput result = step.measure(batch, timesteps(batch, band), baseline_.at(cell++));
      sums.add(result, batch.size());
      all.add(result, batch.size());
    }
    if (sums.values.contains("accuracy")) metrics[concat("eval/accuracy_band", band)] = sums.mean("accuracy");
  }
  for (const auto& [name, value] : all.values) metrics["eval/" + name] = all.mean(name);
  if (all.values.contains("accuracy")) {
    // The grid points of one group are not independent: the interval counts groups.
    const auto interval =
        wilson_proportion(all.mean("accuracy") * static_cast<double>(num_groups()), static_cast<double>(num_groups()));
    metrics["eval/accuracy_low"] = interval.low;
    metrics["eval/accuracy_high"] = interval.high;
  }
  return metrics;
}

}  // namespace prefusion::training
