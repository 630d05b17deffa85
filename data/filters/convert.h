#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/filters/group_set.h"

// From one kind of group to another. Docs: docs/curation.md states the same rules for users.
namespace prefusion::data::filters {

enum class PairRule { kAll, kAdjacent, kBestWorst };

struct Conversion {
  std::vector<Group> groups;
  int64_t ties = 0;          // dropped
  int64_t too_short = 0;     // groups with too few items for what is made
  int64_t unused = 0;        // items that became part of no group
  int64_t same_picture = 0;  // pairs of a picture with itself, which say nothing of two
};

// Every two items of a group, neighbours by rank, or the best with the worst. Two items stay in the data's order. Ties
// are dropped, or kept with labels of one half. Pairs stay as they are.
Conversion to_pairs(const std::vector<Group>& groups, PairRule rule, bool keep_ties);

// Pairs of one prompt that share pictures (by content) become one list: of all pictures that are compared with each
// other, directly or over others, ordered by the share of their comparisons they won, a tie being half a win; that
// share is the label. Scores are those of the picture's first occurrence, the weight the mean; the user stays where all
// pairs have the same, prompts of single pictures are dropped. Longer groups stay lists of their own. Needs the
// pictures' content hashes.
Conversion to_lists(const GroupSet& set, const std::vector<Group>& groups);

// From which value on a single picture is desirable: of the named score, or of the label where it is empty.
struct Threshold {
  std::string score;
  double value = 0;
};

// One group an item, labelled 1 or 0: by the threshold; without one the best items of a group are desirable, the worst
// are not, the rest is unused, and groups whose items all tie are dropped, or kept with labels of one half. Single
// items keep their label without a threshold.
Conversion to_unpaired(const GroupSet& set, const std::vector<Group>& groups, const std::optional<Threshold>& threshold,
                       bool keep_ties);

// Drops groups whose items all tie; single items stay.
Conversion without_ties(const std::vector<Group>& groups);

}  // namespace prefusion::data::filters
