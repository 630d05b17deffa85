#pragma once

#include <string>
#include <vector>

#include "core/rng.h"
#include "data/dataset.h"

namespace prefusion::tests {

// Pairs of which only the labels and scores are known.
class FakeGroups : public data::PreferenceDataset {
 public:
  // One pair for each margin of its scores.
  explicit FakeGroups(std::vector<double> margins) : margins_(std::move(margins)) { summary_.score_name = "score"; }

  int64_t size() const override { return static_cast<int64_t>(margins_.size()); }
  int64_t group_size() const override { return 2; }
  const data::DatasetSummary& summary() const override { return summary_; }
  const std::string& prompt(int64_t) const override { return prompt_; }
  std::string id(int64_t index) const override { return std::to_string(index); }
  std::vector<double> labels(int64_t) const override { return {1, 0}; }
  std::vector<double> scores(int64_t index) const override { return {margins_[index], 0.0}; }
  data::PreferenceRecord read(int64_t) const override { return {}; }
  std::vector<int64_t> epoch_order(uint64_t seed, uint64_t epoch) const override {
    return random_permutation(size(), DrawKey{.seed = seed, .draw = epoch}, RandomPurpose::kShuffle);
  }

 private:
  std::vector<double> margins_;
  std::string prompt_;
  data::DatasetSummary summary_;
};

}  // namespace prefusion::tests
