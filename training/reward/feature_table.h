#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "training/reward/reward_data.h"
#include "training/reward/reward_network.h"

namespace prefusion::training {

// What frozen towers make of every picture and prompt of a run, encoded once and kept in OUTPUT/cache/features.h5 by
// content, so that a killed run goes on encoding where it was and the next run finds them there. In memory they take
// 4 bytes x width for each distinct picture and prompt.
class FeatureTable {
 public:
  // Encodes what is not cached yet. Groups with an unreadable picture are taken out of `data`.
  FeatureTable(RewardData& data, RewardNetwork& network, const TrainRewardOptions& options);

  at::Tensor pictures(const std::vector<RewardGroup>& groups) const;  // [B * k, Dv]
  at::Tensor prompts(const std::vector<std::string>& prompts) const;  // [B, Dt]
  // The row's own weight.
  double weight(const RewardGroup& group) const { return weights_[group.source][group.index]; }

 private:
  class Builder;
  at::Tensor pictures_;  // [P, Dv], on the network's device
  at::Tensor prompts_;   // [M, Dt]
  int64_t group_size_ = 2;
  std::vector<std::vector<int64_t>> rows_;   // a source: group * k + item -> row of pictures_, -1 unreadable
  std::vector<std::vector<float>> weights_;  // a source: of each group
  std::unordered_map<std::string, int64_t> prompt_rows_;
};

}  // namespace prefusion::training
