#pragma once

#include <string>
#include <vector>

#include "tools/score_row.h"

namespace prefusion::tools {

struct ScoreStatistics {
  int64_t count = 0;
  double mean = 0;
  double std = 0;  // of the sample, n - 1
  double min = 0;
  double lower_quartile = 0;  // linear between neighbours, as NumPy's default
  double median = 0;
  double upper_quartile = 0;
  double max = 0;
};

// Of at least one value.
ScoreStatistics score_statistics(std::vector<float> values);

// Collects the scores of a run: four bytes a score.
class ScoreSummary {
 public:
  explicit ScoreSummary(std::vector<std::string> rewards) : rewards_(std::move(rewards)), values_(rewards_.size()) {}

  void add(const ScoreRow& row);
  int64_t num_rows() const { return num_rows_; }
  int64_t num_bad() const { return num_bad_; }
  const std::string& first_bad() const { return first_bad_; }  // "IMAGE: ERROR"

  // Per reward a line of statistics and a histogram of ten bins.
  std::string text() const;

 private:
  std::vector<std::string> rewards_;
  std::vector<std::vector<float>> values_;  // one list a reward
  int64_t num_rows_ = 0;
  int64_t num_bad_ = 0;
  std::string first_bad_;
};

}  // namespace prefusion::tools
