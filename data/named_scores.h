#pragma once

#include <map>
#include <string>
#include <vector>

namespace prefusion::data {

// Reward scores of a row: name -> one value an item, higher is better.
using NamedScores = std::map<std::string, std::vector<double>>;

// What a score is called that its file gives no name: `scores`: [...], `score`, or the columns score_0 and score_1.
inline constexpr const char* kUnnamedScore = "score";

// A score that is the label itself: RankDPO's phi or another share in [0, 1], which `prefusion synthesize` made of the
// other scores.
inline constexpr const char* kPhiScore = "phi";

// Adds the value of item number `item`; a score that missed an earlier item stays behind.
inline void add_score(const std::string& name, size_t item, double value, NamedScores& scores) {
  std::vector<double>& values = scores[name];
  if (values.size() == item) values.push_back(value);
}

// Drops the scores that miss an item.
inline void keep_complete_scores(size_t num_items, NamedScores& scores) {
  std::erase_if(scores, [&](const auto& entry) { return entry.second.size() != num_items; });
}

}  // namespace prefusion::data
