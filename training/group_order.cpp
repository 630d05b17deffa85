#include "training/group_order.h"

#include <algorithm>

namespace prefusion::training {

GroupOrder::GroupOrder(std::shared_ptr<const data::PreferenceDataset> dataset, uint64_t seed,
                       std::vector<int64_t> chunks, int64_t num_positions, int64_t num_draws)
    : dataset_(std::move(dataset)), seed_(seed), chunks_(std::move(chunks)), num_draws_(num_draws) {
  const int64_t num_stages = *std::max_element(chunks_.begin(), chunks_.end()) + 1;
  Stage stage;
  for (int64_t c = 0; c < num_stages; ++c) {
    stage.num_groups += std::count(chunks_.begin(), chunks_.end(), c);
    stages_.push_back(stage);
    const int64_t end = num_positions * (c + 1) / num_stages;
    const int64_t length = end - stage.first_position;
    stage.first_pass += (length + stage.num_groups - 1) / stage.num_groups;  // the last pass may be cut short
    stage.first_position = end;
  }
}

GroupRef GroupOrder::at(int64_t position) {
  const auto next = std::upper_bound(stages_.begin(), stages_.end(), position,
                                     [](int64_t at, const Stage& stage) { return at < stage.first_position; });
  const auto stage = static_cast<size_t>(next - stages_.begin()) - 1;
  const auto& [first_position, first_pass, num_groups] = stages_[stage];
  const int64_t number = first_pass + (position - first_position) / num_groups;
  if (number != pass_) {
    order_ = pass(stage, number);
    pass_ = number;
  }
  const int64_t draw = num_draws_ > 0 ? number % num_draws_ : number;
  return {order_[static_cast<size_t>((position - first_position) % num_groups)], static_cast<uint64_t>(draw)};
}

std::vector<int64_t> GroupOrder::pass(size_t stage, int64_t number) const {
  std::vector<int64_t> order = dataset_->epoch_order(seed_, static_cast<uint64_t>(number));
  std::erase_if(order, [&](int64_t item) { return chunks_[static_cast<size_t>(item)] > static_cast<int64_t>(stage); });
  return order;
}

std::vector<int64_t> GroupOrder::items_until(int64_t num_positions) {
  std::vector<bool> is_used(chunks_.size());
  for (size_t stage = 0; stage < stages_.size() && stages_[stage].first_position < num_positions; ++stage) {
    const bool is_last = stage + 1 == stages_.size();
    const int64_t begin = stages_[stage].first_position;
    const int64_t end = is_last ? num_positions : std::min(num_positions, stages_[stage + 1].first_position);
    if (end - begin >= stages_[stage].num_groups) {
      for (size_t i = 0; i < chunks_.size(); ++i) {
        if (chunks_[i] <= static_cast<int64_t>(stage)) is_used[i] = true;
      }
    } else {
      for (int64_t position = begin; position < end; ++position) is_used[static_cast<size_t>(at(position).item)] = true;
    }
  }
  std::vector<int64_t> items;
  for (size_t i = 0; i < is_used.size(); ++i) {
    if (is_used[i]) items.push_back(static_cast<int64_t>(i));
  }
  return items;
}

}  // namespace prefusion::training
