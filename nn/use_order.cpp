#include "nn/use_order.h"

namespace prefusion::nn {

void UseOrder::used(size_t id) {
  following_[last_] = id;
  last_ = {last_.second, id};
}

std::vector<size_t> UseOrder::next(size_t count) const {
  std::vector<size_t> ids;
  for (Pair at = last_; ids.size() < count;) {
    const auto found = following_.find(at);
    if (found == following_.end()) break;
    ids.push_back(found->second);
    at = {at.second, found->second};
  }
  return ids;
}

}  // namespace prefusion::nn
