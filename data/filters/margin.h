#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/filters/rule.h"

// Rules on what reward models say of a group beside its label.
namespace prefusion::data::filters {

// The value of a group's best item minus that of its worst, of a score by number or, without one, of the labels:
// negative where the score contradicts the label. kMissing for single items, ties, and items without the score.
double margin(const Group& group, std::optional<size_t> score);

// Of all pairs of items that differ in rank, the share that a score orders the same, equal scores counting one half; 1
// where no two differ. kMissing where an item has no score.
double agreement(const Group& group, size_t score);

// Root mean square of a score's margins over all groups that have one: its scale. 0 where none has.
double margin_scale(const GroupSet& set, size_t score);

// A bound on a margin.
struct MarginBound {
  std::string score;  // empty: of the labels
  double value = 0;
};
// "0.5" (of the labels) or "pickscore=0.5". Usage error otherwise.
MarginBound parse_margin_bound(const std::string& text);

// Margins of at least, or at most, the bound. Groups without a margin leave.
Rule min_margin_rule(const GroupSet& set, const MarginBound& bound);
Rule max_margin_rule(const GroupSet& set, const MarginBound& bound);

// Every named score agrees with the label to at least `min_agreement`.
Rule agreement_rule(const GroupSet& set, const std::vector<std::string>& scores, double min_agreement);

// Label flips: every one of the scores contradicts the label by more than `strength` times its margin_scale().
bool looks_flipped(const GroupSet& set, const Group& group, const std::vector<size_t>& scores,
                   const std::vector<double>& limits);
Rule drop_flips_rule(const GroupSet& set, const std::vector<std::string>& scores, double strength);
// Exchanges the labels of the pairs among `alive` that look flipped, and returns them. Groups of more items are left.
std::vector<int64_t> relabel_flips(GroupSet& set, std::span<const int64_t> alive,
                                   const std::vector<std::string>& scores, double strength);

}  // namespace prefusion::data::filters
