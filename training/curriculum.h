#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace prefusion::training {

// Easy groups first (Curriculum DPO, arXiv 2405.13637): groups from easy to hard are cut into chunks; the run has as
// many stages as chunks, of equal length, and stage c draws from the chunks 0 .. c.
struct Curriculum {
  // Easy is a large margin of the data's scores or labels, or a pair the model at the start ranks rightly and clearly
  // (training/hardness.h).
  enum class Order { kMargin, kHardness };
  Order order = Order::kMargin;
  int64_t num_chunks = 1;  // 1 for none: all groups at once
  // By margin: groups are left out whose margin is not above it. Curriculum DPO takes 0.02 for human preferences and
  // LLaVA's, 0.2 for aesthetic scores.
  std::optional<double> min_gap;
  int64_t num_timesteps = 4;  // by hardness: at which the model is asked

  // "margin:CHUNKS", "margin:CHUNKS:MIN_GAP", "hardness:CHUNKS" or "hardness:CHUNKS:TIMESTEPS"; empty for none. Usage
  // error otherwise.
  static Curriculum parse(const std::string& text);
  bool is_on() const { return num_chunks > 1 || min_gap; }
  bool is_by_hardness() const { return order == Order::kHardness; }
};

// data::preference_margin of every group.
std::vector<double> margins_of(const data::PreferenceDataset& dataset);

// Indices of the groups whose margin is above `min_gap`. Input error when there are none.
std::vector<int64_t> groups_above_gap(const data::PreferenceDataset& dataset, double min_gap);

// The chunk of each group, 0 .. num_chunks-1 from the largest `ease` to the smallest; sizes differ by one at most, and
// groups of equal ease stay in order. Usage error when there are more chunks than groups, input error, which says that
// every group has the same `what`, when nothing tells easy from hard.
std::vector<int64_t> chunks_by_ease(const std::vector<double>& ease, int64_t num_chunks, const char* what);

}  // namespace prefusion::training
