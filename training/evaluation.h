#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "training/batch_source.h"
#include "training/metrics_log.h"
#include "training/train_step.h"

namespace prefusion::training {

// Held-out preference metrics: the objective on groups that are never trained on, at a fixed grid of timesteps and with
// fixed noise, so that two measurements differ by the weights alone. Reference errors are computed once.
class HeldOutEvaluation {
 public:
  // `batches` are kept; `num_timesteps` grid points are the middles of equal bands of the schedule.
  HeldOutEvaluation(std::vector<EncodedBatch> batches, int64_t num_train_timesteps, int64_t num_timesteps = 4);

  // eval/loss, eval/accuracy with its 95 % interval eval/accuracy_low and _high, eval/margin, the errors, and
  // eval/accuracy_band0 ... (low noise first).
  Metrics measure(const TrainStep& step);

  int64_t num_groups() const;

 private:
  std::vector<EncodedBatch> batches_;
  std::vector<int64_t> grid_;
  std::vector<at::Tensor> reference_errors_;  // one a (grid point, batch), once known
};

}  // namespace prefusion::training
