#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "data/tensor_cache.h"
#include "training/batch_source.h"
#include "training/train_step.h"

namespace prefusion::training {

// The reference's errors of every (group, draw) a run uses, computed ahead without autograd and kept in the cache's
// file: training then holds no reference and runs no reference pass, and runs that differ in objective, kappa or
// learning rate share the one pass. An entry's key covers whatever the errors depend on: the reference's weights, the
// encoded pictures and text, seed, item, draw and timestep. Only for references that do not move.
class ReferenceErrors {
 public:
  // `run_key` names what all errors of the run depend on: reference weights, schedule, dtype, seed.
  ReferenceErrors(data::TensorCache& cache, std::string run_key) : cache_(cache), run_key_(std::move(run_key)) {}

  // Makes the errors of the first `num_groups` groups of `source` known, `batch_size` of them at a time; those in the
  // cache already are read. `step` must have a reference.
  void prepare(BatchSource& source, const TrainStep& step, int64_t num_groups, int64_t batch_size, bool shows_progress);

  // [B, k] fp32 on the device of the batch. Run error for a group that prepare() did not see.
  at::Tensor find(const EncodedBatch& batch) const;

 private:
  // The groups of a batch whose errors are not known are computed, the others read.
  void add(const EncodedBatch& batch, const TrainStep& step);
  void remember(const GroupRef& group, const at::Tensor& error);

  data::TensorCache& cache_;
  std::string run_key_;
  std::map<std::pair<int64_t, uint64_t>, size_t> offsets_;  // of the k errors of (item, draw) in values_
  std::vector<float> values_;
  int64_t num_computed_ = 0;
};

}  // namespace prefusion::training
