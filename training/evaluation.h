#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "training/batch_source.h"
#include "training/held_out_errors.h"
#include "training/metrics_log.h"
#include "training/train_step.h"

namespace prefusion::training {

// Held-out preference metrics: the objective on groups that are never trained on, at a fixed grid of timesteps and with
// fixed noise, so that two measurements differ by the weights alone.
class HeldOutEvaluation {
 public:
  // `batches` are kept; `num_timesteps` grid points are the middles of equal bands of the schedule.
  HeldOutEvaluation(std::vector<EncodedBatch> batches, int64_t num_train_timesteps, int64_t num_timesteps = 4);

  // Measures what all later measurements are compared with, once, before training (and before a checkpoint is read):
  // the errors of the reference, or of the policy itself where there is none or it is going to follow the policy. So
  // eval/error_chosen_ref is that of the start for every objective and reference, and drift shows.
  void set_baseline(const TrainStep& step, bool reference_moves);

  // eval/loss, eval/accuracy with its 95 % interval eval/accuracy_low and _high, eval/margin, the errors,
  // eval/accuracy_band0 ... (low noise first), and held_out_metrics. set_baseline comes first.
  Metrics measure(const TrainStep& step);

  // What the last measure() found.
  const HeldOutErrors& errors() const { return errors_; }

  int64_t num_groups() const;

 private:
  at::Tensor timesteps(const EncodedBatch& batch, size_t band) const;
  // [G, N, k] of one tensor a (grid point, batch).
  at::Tensor gather(const std::vector<at::Tensor>& cells) const;

  std::vector<EncodedBatch> batches_;
  std::vector<int64_t> grid_;
  std::vector<at::Tensor> baseline_;  // [B, k], one a (grid point, batch)
  HeldOutErrors errors_;
};

}  // namespace prefusion::training
