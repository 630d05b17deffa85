#pragma once

#include <cstdint>
#include <vector>

#include "data/dataset.h"
#include "data/source.h"

namespace prefusion::data {

// One group made from a row: which items, best first, with their labels and ranks.
struct GroupPlan {
  std::vector<uint16_t> items;
  std::vector<float> labels;
  std::vector<float> ranks;
};

enum class PlanOutcome { kUsed, kTie, kMissingLabel, kTooShort };

struct RowPlan {
  PlanOutcome outcome = PlanOutcome::kUsed;
  bool has_tie = false;
  std::vector<GroupPlan> groups;
};

// Turns a usable row into groups of the wanted kind.
//   pair:     two items as they are; a list gives its best against its worst, or every two neighbours of different
//   rank. list:     all items, best first. unpaired: one group an item; of two or more items the best are desirable
//   (1), the worst undesirable (0), the rest
//             unused; a single item keeps its label.
RowPlan plan_groups(const ScannedRow& row, const DatasetOptions& options);

// Keeps `size` items of a best-first list at even distances, the first and the last among them.
void thin_group(GroupPlan& group, size_t size);

// Ranks from 0 (best), ties sharing the mean of their places; `badness` lower is better.
std::vector<double> average_ranks(const std::vector<double>& badness);

// Share of rivals each item beats, a tie counting one half; in [0, 1].
std::vector<double> win_shares(const std::vector<double>& badness);

}  // namespace prefusion::data
