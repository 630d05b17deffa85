#pragma once

#include <cstdint>
#include <vector>

#include "training/reward/reward_data.h"

namespace prefusion::training {

// The order in which a run goes through its training groups: position p is in epoch p / count; the order of an epoch
// follows from the seed and its number. One source is read along its own streaming order.
class RewardOrder {
 public:
  RewardOrder(const RewardData& data, uint64_t seed);

  // Place in data.train.
  int64_t at(int64_t position);

 private:
  void begin_epoch(int64_t epoch);

  const RewardData& data_;
  uint64_t seed_;
  std::vector<int64_t> place_of_index_;  // of a single source: its group -> place in data.train or -1
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;
};

}  // namespace prefusion::training
