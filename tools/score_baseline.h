#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tools/score_row.h"

namespace prefusion::tools {

// Compares a run's scores with those of another score file, row by row. Rows belong together by the picture's file
// name and prompt, by file name alone, or by prompt and order (the k-th picture of a prompt with the k-th of the same
// prompt): the first of these that joins half of the rows, else the one that joins most.
class ScoreBaseline {
 public:
  // Reads the file. Usage error when it has none of the rewards, input error when it is broken.
  ScoreBaseline(const std::filesystem::path& path, const std::vector<std::string>& rewards);

  void add(const ScoreRow& row);

  // How many rows were joined and how; per reward the win rate (a tie counts one half) with its Wilson interval, and
  // the mean difference with its normal interval and with a bootstrap over prompts, all of 95 %. The bootstrap draws
  // the same resamples every time.
  std::string text() const;

 private:
  static constexpr size_t kNumKeys = 3;
  struct Join {
    std::unordered_map<std::string, std::vector<size_t>> rows;  // of the baseline, by key, in order
    std::unordered_map<std::string, size_t> used;               // how many of them are taken
    std::vector<std::pair<size_t, size_t>> pairs;               // (own row, baseline row)
  };
  using Scores = std::vector<std::optional<float>>;

  const Join& best_join() const;
  int64_t prompt_number(const ScoreRow& row);

  std::filesystem::path path_;
  std::vector<size_t> shared_;  // indices of the run's rewards that the file has
  std::vector<std::string> rewards_;
  std::unordered_map<std::string, int64_t> prompt_numbers_;
  std::vector<int64_t> own_prompts_;  // the number of each own row's prompt; a row without one has its own
  std::vector<Scores> own_;
  std::vector<Scores> theirs_;
  std::array<Join, kNumKeys> joins_;
};

}  // namespace prefusion::tools
