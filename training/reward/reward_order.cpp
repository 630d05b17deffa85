#include "training/reward/reward_order.h"

#include "core/rng.h"

namespace prefusion::training {

RewardOrder::RewardOrder(const RewardData& data, uint64_t seed) : data_(data), seed_(seed) {
  if (data.columns.size() > 1) return;
  place_of_index_.assign(static_cast<size_t>(data.sources.front()->size()), -1);
  for (size_t i = 0; i < data.train.size(); ++i) place_of_index_[data.train[i].index] = static_cast<int64_t>(i);
}

void RewardOrder::begin_epoch(int64_t epoch) {
  epoch_ = epoch;
  const auto number = static_cast<uint64_t>(epoch);
  if (place_of_index_.empty()) {
    order_ = random_permutation(static_cast<int64_t>(data_.train.size()), {.seed = seed_, .item = number},
                                RandomPurpose::kShuffle);
    return;
  }
  order_.clear();
  for (const int64_t index : data_.sources.front()->epoch_order(seed_, number)) {
    if (place_of_index_[index] >= 0) order_.push_back(place_of_index_[index]);
  }
}

int64_t RewardOrder::at(int64_t position) {
  const auto count = static_cast<int64_t>(data_.train.size());
  if (position / count != epoch_) begin_epoch(position / count);
  return order_[position % count];
}

}  // namespace prefusion::training
