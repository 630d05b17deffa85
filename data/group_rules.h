#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/source.h"

namespace prefusion::data {

// One item of a group: which of its row's, and what is known of it without its image.
struct GroupItem {
  uint16_t item = 0;
  float label = 0;
  float rank = 0;
  float score = std::numeric_limits<float>::quiet_NaN();
  uint32_t prompt = 0;  // number of its own prompt
};

// One group made from a row: its items, best first.
using GroupPlan = std::vector<GroupItem>;

enum class PlanOutcome { kUsed, kTie, kMissingLabel, kTooShort };

struct RowPlan {
  PlanOutcome outcome = PlanOutcome::kUsed;
  bool has_tie = false;
  std::vector<GroupPlan> groups;
};

// Turns a usable row into groups of the wanted kind; scores and prompts are left out.
//   pair      two items as they are; a list gives its best against its worst, or every two neighbours of different rank
//   list      all items, best first
//   unpaired  one group an item; of two or more items the best are desirable (1), the worst undesirable (0), the rest
//             unused; a single item keeps its label
RowPlan plan_groups(const ScannedRow& row, const DatasetOptions& options);

// Order and labels of a row that no human labelled: the score called `score_name` where one is asked for, else the
// ranks (one an item, or empty), else the scores. Without a name the labels are the score `phi`, else that of no
// name, else RankDPO's phi, the share of strict wins over all scores and rivals; or the share of rivals an item beats
// by rank, where there are no scores or they put items in another order than the ranks.
void judge_by_scores(std::vector<double> ranks, const std::string& score_name, ScannedRow& row);

// The same where only ranks are known: labels are the share of rivals an item beats.
void judge_by_ranks(std::vector<double> ranks, ScannedRow& row);

// Labels are the mean over the row's scores: of ratings of several aspects on one scale.
void judge_by_mean_score(ScannedRow& row);

// How bad a usable row's items are: its ranks where it has some, else its labels negated.
std::vector<double> badness_of(const ScannedRow& row);

// Keeps `size` items of a best-first list at even distances, the first and the last among them.
void thin_group(GroupPlan& group, size_t size);

// Ranks from 0 (best), ties sharing the mean of their places; `badness` lower is better.
std::vector<double> average_ranks(const std::vector<double>& badness);

// Share of rivals each item beats, a tie counting one half; in [0, 1].
std::vector<double> win_shares(const std::vector<double>& badness);

}  // namespace prefusion::data
