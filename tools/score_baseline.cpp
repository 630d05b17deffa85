#include "tools/score_baseline.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.h"
#include "core/statistics.h"
#include "tools/score_file.h"
#include "training/paired_statistics.h"

namespace prefusion::tools {
namespace {

constexpr const char* kKeyNames[] = {"file name and prompt", "file name", "prompt and order"};

std::array<std::string, 3> keys_of(const ScoreRow& row) {
  const std::string name = std::filesystem::path(valid_text(row.image)).filename().string();
  const std::string prompt = valid_text(row.prompt.value_or(""));
  return {name + '\n' + prompt, name, prompt};
}

// Of the bootstrap: what evaluate uses, and fewer only where that would be more than 10^8 draws.
constexpr int64_t kMostResamples = 2000;
constexpr int64_t kMostDraws = 100'000'000;

struct Comparison {
  double wins = 0;
  std::vector<double> differences;
  std::vector<int64_t> prompts;  // of each difference
};

training::Interval bootstrapped(const Comparison& comparison) {
  const auto count = static_cast<int64_t>(comparison.differences.size());
  return training::bootstrap_mean(comparison.differences, comparison.prompts, /*seed=*/0,
                                  std::clamp(kMostDraws / count, int64_t{200}, kMostResamples));
}

std::string comparison_line(const std::string& reward, const Comparison& comparison) {
  const auto count = static_cast<double>(comparison.differences.size());
  if (comparison.differences.empty()) return reward + ": no pair with both scores\n";
  const Proportion rate = wilson_proportion(comparison.wins, count);
  double mean = 0;
  for (const double difference : comparison.differences) mean += difference / count;
  double squares = 0;
  for (const double difference : comparison.differences) squares += (difference - mean) * (difference - mean);
  const double reach = count > 1 ? kZ95 * std::sqrt(squares / (count - 1) / count) : INFINITY;
  const training::Interval by_prompt = bootstrapped(comparison);
  char line[320];
  std::snprintf(line, sizeof line,
                ": wins %.1f %% [%.1f, %.1f] of %.0f, mean difference %+.4g [%+.4g, %+.4g], over prompts [%+.4g, "
                "%+.4g]\n",
                100 * rate.rate, 100 * rate.low, 100 * rate.high, count, mean, mean - reach, mean + reach,
                by_prompt.low, by_prompt.high);
  return reward + line;
}

}  // namespace

ScoreBaseline::ScoreBaseline(const std::filesystem::path& path, const std::vector<std::string>& rewards)
    : path_(path), rewards_(rewards) {
  const std::vector<std::string> columns = score_file_columns(path);
  ScoreLayout layout;
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (std::find(columns.begin(), columns.end(), rewards[i]) == columns.end()) continue;
    shared_.push_back(i);
    layout.rewards.push_back(rewards[i]);
  }
  check_usage(!shared_.empty(), "--baseline ", path.string(), ": has none of this run's reward columns");
  const auto reader = open_score_file(path, layout);
  for (ScoreRow row; reader->next(row); row = {}) {
    const auto keys = keys_of(row);
    for (size_t k = 0; k < kNumKeys; ++k) joins_[k].rows[keys[k]].push_back(theirs_.size());
    theirs_.push_back(row.scores);
  }
}

void ScoreBaseline::add(const ScoreRow& row) {
  const auto keys = keys_of(row);
  for (size_t k = 0; k < kNumKeys; ++k) {
    const auto found = joins_[k].rows.find(keys[k]);
    if (found == joins_[k].rows.end()) continue;
    size_t& used = joins_[k].used[keys[k]];
    if (used < found->second.size()) joins_[k].pairs.emplace_back(own_.size(), found->second[used++]);
  }
  Scores scores;
  for (const size_t reward : shared_) scores.push_back(row.scores[reward]);
  own_.push_back(std::move(scores));
  own_prompts_.push_back(prompt_number(row));
}

int64_t ScoreBaseline::prompt_number(const ScoreRow& row) {
  if (!row.prompt) return -static_cast<int64_t>(own_.size());
  return prompt_numbers_.try_emplace(*row.prompt, static_cast<int64_t>(prompt_numbers_.size())).first->second;
}

const ScoreBaseline::Join& ScoreBaseline::best_join() const {
  for (const Join& join : joins_) {
    if (2 * join.pairs.size() >= own_.size()) return join;
  }
  return *std::max_element(joins_.begin(), joins_.end(),
                           [](const Join& a, const Join& b) { return a.pairs.size() < b.pairs.size(); });
}

std::string ScoreBaseline::text() const {
  const Join& join = best_join();
  std::string text = concat("against ", path_.string(), ": ", join.pairs.size(), " of ", own_.size(),
                            " rows joined by ", kKeyNames[&join - joins_.data()], '\n');
  for (size_t i = 0; i < shared_.size(); ++i) {
    Comparison comparison;
    for (const auto& [own, theirs] : join.pairs) {
      const auto& a = own_[own][i];
      const auto& b = theirs_[theirs][i];
      if (!a || !b) continue;
      comparison.wins += *a > *b ? 1 : *a == *b ? 0.5 : 0;
      comparison.differences.push_back(static_cast<double>(*a) - static_cast<double>(*b));
      comparison.prompts.push_back(own_prompts_[own]);
    }
    text += comparison_line(rewards_[shared_[i]], comparison);
  }
  return text;
}

}  // namespace prefusion::tools
