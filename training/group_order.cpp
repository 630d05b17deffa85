#include "training/group_order.h"

#include <algorithm>
#include <numeric>

namespace prefusion::training {

GroupRef GroupOrder::at(int64_t position) {
  const int64_t epoch = position / dataset_->size();
  if (epoch != epoch_) {
    order_ = dataset_->epoch_order(seed_, static_cast<uint64_t>(epoch));
    epoch_ = epoch;
  }
  return {order_[static_cast<size_t>(position % dataset_->size())], static_cast<uint64_t>(epoch)};
}

std::vector<int64_t> GroupOrder::items_until(int64_t num_positions) {
  std::vector<int64_t> items;
  if (num_positions >= dataset_->size()) {
    items.resize(static_cast<size_t>(dataset_->size()));
    std::iota(items.begin(), items.end(), int64_t{0});
    return items;
  }
  for (int64_t position = 0; position < num_positions; ++position) items.push_back(at(position).item);
  std::sort(items.begin(), items.end());
  return items;
}

}  // namespace prefusion::training
