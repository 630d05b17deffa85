#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <optional>
#include <vector>

#include "reward_models/ensemble.h"

namespace prefusion::tools {

// How the pictures of a group are compared: an aggregate of their scores, where z-scores take the statistics given or
// else those of the group itself.
struct GroupRanking {
  const reward_models::AggregateKind* kind = nullptr;
  std::vector<double> weights;  // of the reward models, or empty
  std::optional<reward_models::ScoreStatistics> statistics;

  at::Tensor values(const at::Tensor& scores) const;  // [n, R] -> [n], higher is better

  // The positions of the best `count` pictures, ascending; of equal ones the earlier.
  std::vector<size_t> best(const at::Tensor& scores, size_t count) const;
};

}  // namespace prefusion::tools
