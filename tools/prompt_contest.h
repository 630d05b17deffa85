#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "reward_models/prompt_bandit.h"

namespace prefusion::tools {

// Prompts in competition, and the file that keeps every duel: JSONL of {"a": prompt, "b": prompt, "winner": "a", "b",
// "tie", or the probability that a is preferred}. The file need not exist yet; people may write into it, too.
class PromptContest {
 public:
  // Input error for a line of the file that is no duel of these prompts.
  PromptContest(std::vector<std::string> prompts, const at::Tensor& features,
                const reward_models::BanditOptions& options, std::filesystem::path duels);

  const std::string& prompt(int64_t index) const { return prompts_[index]; }
  const reward_models::PromptBandit& bandit() const { return bandit_; }
  int64_t num_duels() const { return static_cast<int64_t>(bandit_.duels().size()); }

  // Writes a duel down, whole or not at all, and learns from it.
  void add(const reward_models::Duel& duel);

  // {"duels", "best", "next": {"a", "b"}, "prompts": [{"prompt", "mean", "width", "duels", "wins"}, ...]}, best first;
  // the width is half of the 95 % interval around the mean.
  nlohmann::ordered_json result() const;
  // The first `count` of the prompts as a table.
  std::string text(int64_t count) const;

 private:
  int64_t number_of(const std::string& prompt, const std::string& where) const;
  reward_models::Duel parse_duel(const std::string& line, const std::string& where) const;

  std::vector<std::string> prompts_;
  std::unordered_map<std::string, int64_t> numbers_;
  reward_models::PromptBandit bandit_;
  std::filesystem::path path_;
  std::string written_;  // what the file holds
};

}  // namespace prefusion::tools
