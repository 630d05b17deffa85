#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/dataset.h"
#include "training/batch_source.h"

namespace prefusion::training {

// The endless sequence of groups a run trains on: epoch after epoch of the data set's shuffled order. A position in it
// is all the data state a run has.
class GroupOrder {
 public:
  GroupOrder(std::shared_ptr<const data::PreferenceDataset> dataset, uint64_t seed)
      : dataset_(std::move(dataset)), seed_(seed) {}

  GroupRef at(int64_t position);

  // The distinct items of the positions [0, num_positions), ascending: what has to be encoded for them.
  std::vector<int64_t> items_until(int64_t num_positions);

 private:
  std::shared_ptr<const data::PreferenceDataset> dataset_;
  uint64_t seed_;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;  // of epoch_
};

}  // namespace prefusion::training
