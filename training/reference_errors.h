#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "data/tensor_cache.h"
#include "training/align_options.h"
#include "training/batch_source.h"
#include "training/encoded_data.h"
#include "training/train_step.h"

namespace prefusion::training {

// Errors of a network that does not move, computed ahead without autograd and kept in the cache's file: training then
// holds no reference and runs no reference pass, and runs that differ in objective, kappa or learning rate share the
// one pass. An entry's key covers whatever the errors depend on: the network's weights, the encoded pictures and text,
// seed, item, draw and timestep.
class ReferenceErrors {
 public:
  // What is asked, and of which network.
  struct Questions {
    std::vector<data::LoadRequest> draws;  // of training groups, each once
    double empty_prompt_rate = 0;
    std::function<at::Tensor(const EncodedBatch&)> timesteps;                     // -> [B]
    std::function<at::Tensor(const EncodedBatch&, const at::Tensor&)> errors_at;  // (batch, timesteps) -> [B, k]
    int64_t batch_size = 1;
    std::string title = "reference errors";
    bool shows_progress = false;
  };

  // `run_key` names what all errors depend on: weights, schedule, dtype, seed (reference_run_key).
  ReferenceErrors(data::TensorCache& cache, std::string run_key) : cache_(cache), run_key_(std::move(run_key)) {}

  // Makes the errors known; those in the cache already are read. Interrupted or killed, it goes on where it was.
  void prepare(EncodedData& data, const Questions& questions);

  // [B, k] fp32 on the device of the batch. Run error for a group that prepare() did not see.
  at::Tensor find(const EncodedBatch& batch) const;

  // The k errors of a draw; empty for one that prepare() did not see.
  std::vector<float> find(const data::LoadRequest& draw) const;

 private:
  // The groups of a batch whose errors are not known are computed, the others read.
  void add(const EncodedBatch& batch, const Questions& questions);
  void remember(const GroupRef& group, const at::Tensor& error);

  data::TensorCache& cache_;
  std::string run_key_;
  std::map<std::pair<int64_t, uint64_t>, size_t> offsets_;  // of the k errors of (item, draw) in values_
  std::vector<float> values_;
  int64_t items_per_group_ = 0;
  int64_t num_computed_ = 0;
};

// Questions to the network of the start: the step's reference, or its policy as long as that has not moved. `step` must
// outlive them.
ReferenceErrors::Questions questions_to_start(const TrainStep& step, int64_t batch_size, bool shows_progress);

// The same about what training will see of these draws: their own timesteps, and captions dropped.
ReferenceErrors::Questions questions_of_training(const TrainStep& step, std::vector<data::LoadRequest> draws,
                                                 const AlignOptions& options, int64_t batch_size);

}  // namespace prefusion::training
