#include "training/evaluation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "core/statistics.h"
#include "training/timestep_sampler.h"
#include "training/user_accuracy.h"

namespace prefusion::training {

HeldOutEvaluation::HeldOutEvaluation(std::vector<EncodedBatch> batches, int64_t num_train_timesteps,
                                     int64_t num_timesteps)
    : batches_(std::move(batches)), grid_(timestep_grid(num_train_timesteps, num_timesteps)) {
  const auto joined = [this](at::Tensor EncodedBatch::*values) {
    std::vector<at::Tensor> parts;
    for (const auto& batch : batches_) {
      if (!(batch.*values).defined()) return at::Tensor();
      parts.push_back((batch.*values).cpu().to(at::kDouble));
    }
    return parts.empty() ? at::Tensor() : at::cat(parts);
  };
  errors_.timesteps = grid_;
  errors_.labels = joined(&EncodedBatch::labels);
  errors_.scores = joined(&EncodedBatch::scores);
  for (const auto& batch : batches_) {
    errors_.ids.insert(errors_.ids.end(), batch.ids.begin(), batch.ids.end());
    for (const GroupRef& group : batch.groups) errors_.items.push_back(group.item);
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
  errors_.error_ref = gather(baseline_);
}

at::Tensor HeldOutEvaluation::gather(const std::vector<at::Tensor>& cells) const {
  std::vector<at::Tensor> rows;
  for (const auto& cell : cells) rows.push_back(cell.detach().cpu().to(at::kDouble));
  return at::cat(rows).unflatten(0, {static_cast<int64_t>(grid_.size()), num_groups()});
}

namespace {

// Means over groups. Single pictures of a batch may all be of one kind; what needs the other is not a number then, and
// the batch does not count for it.
class Means {
 public:
  void add(const StepMeasurement& found) {
    const int64_t count = found.errors.error.size(0);
    const bool is_single = found.errors.error.size(1) == 1;
    if (found.output.loss.defined()) add_one("loss", found.output.loss.item<double>(), count);
    for (const auto& [name, tensor] : found.output.metrics) {
      const auto value = tensor.item<double>();
      if (!is_single || !std::isnan(value)) add_one(name, value, count);
    }
  }
  bool has(const std::string& name) const { return sums_.contains(name); }
  double mean(const std::string& name) const { return sums_.at(name).value / sums_.at(name).groups; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, sum] : sums_) names.push_back(name);
    return names;
  }

 private:
  struct Sum {
    double value = 0, groups = 0;
  };
  void add_one(const std::string& name, double value, int64_t count) {
    sums_[name].value += value * static_cast<double>(count);
    sums_[name].groups += static_cast<double>(count);
  }
  std::map<std::string, Sum> sums_;
};

}  // namespace

Metrics HeldOutEvaluation::measure(const TrainStep& step) {
  at::NoGradGuard no_grad;
  Metrics metrics;
  Means all;
  UserAccuracy users;
  std::vector<at::Tensor> cells;
  for (size_t band = 0; band < grid_.size(); ++band) {
    Means means;
    for (const auto& batch : batches_) {
      const StepMeasurement found = step.measure(batch, timesteps(batch, band), baseline_.at(cells.size()));
      if (step.knows_users()) users.add(batch.users, found.errors.error, found.errors.error_ref);
      cells.push_back(found.errors.error);
      means.add(found);
      all.add(found);
    }
    if (means.has("accuracy")) metrics[concat("eval/accuracy_band", band)] = means.mean("accuracy");
  }
  for (const std::string& name : all.names()) metrics["eval/" + name] = all.mean(name);
  if (all.has("accuracy") && std::isfinite(all.mean("accuracy"))) {
    // The grid points of one group are not independent: the interval counts groups.
    const auto interval =
        wilson_proportion(all.mean("accuracy") * static_cast<double>(num_groups()), static_cast<double>(num_groups()));
    metrics["eval/accuracy_low"] = interval.low;
    metrics["eval/accuracy_high"] = interval.high;
  }
  metrics.merge(users.metrics());
  errors_.error = gather(cells);
  for (const auto& [name, value] : held_out_metrics(errors_, step.objective(), step.kappa())) {
    metrics["eval/" + name] = value;
  }
  return metrics;
}

}  // namespace prefusion::training
