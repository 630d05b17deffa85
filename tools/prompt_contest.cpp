#include "tools/prompt_contest.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/statistics.h"

namespace prefusion::tools {
namespace {

using reward_models::Duel;

double parse_outcome(const Json& winner, const std::string& where) {
  if (winner == "a") return 1;
  if (winner == "b") return 0;
  if (winner == "tie") return 0.5;
  const bool is_share = winner.is_number() && winner.get<double>() >= 0 && winner.get<double>() <= 1;
  check_input(is_share, where, ": 'winner' must be \"a\", \"b\", \"tie\" or the probability of a, found ",
              winner.dump().substr(0, 60));
  return winner.get<double>();
}

Json winner_of(const Duel& duel) {
  if (duel.outcome == 1) return "a";
  if (duel.outcome == 0) return "b";
  if (duel.outcome == 0.5) return "tie";
  return duel.outcome;
}

}  // namespace

PromptContest::PromptContest(std::vector<std::string> prompts, const at::Tensor& features,
                             const reward_models::BanditOptions& options, std::filesystem::path duels)
    : prompts_(std::move(prompts)), bandit_(features, options), path_(std::move(duels)) {
  for (size_t i = 0; i < prompts_.size(); ++i) numbers_.emplace(prompts_[i], static_cast<int64_t>(i));
  if (!std::filesystem::exists(path_)) return;
  written_ = read_file(path_);
  if (!written_.empty() && written_.back() != '\n') written_ += '\n';
  std::istringstream lines(written_);
  std::vector<Duel> known;
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string::npos) {
      known.push_back(parse_duel(line, concat(path_.string(), " line ", number)));
    }
  }
  bandit_.add(known);
}

int64_t PromptContest::number_of(const std::string& prompt, const std::string& where) const {
  const auto found = numbers_.find(prompt);
  check_input(found != numbers_.end(), where, ": '", prompt.substr(0, 200), "' is none of the ", prompts_.size(),
              " prompts of this run");
  return found->second;
}

Duel PromptContest::parse_duel(const std::string& line, const std::string& where) const {
  const Json row = parse_json(line, where);
  const bool is_duel = row.is_object() && row.contains("a") && row["a"].is_string() && row.contains("b") &&
                       row["b"].is_string() && row.contains("winner");
  check_input(is_duel, where, R"(: expected {"a": prompt, "b": prompt, "winner": "a", "b" or "tie"}, found )",
              row.dump().substr(0, 60));
  const Duel duel{.first = number_of(row["a"].get<std::string>(), where),
                  .second = number_of(row["b"].get<std::string>(), where),
                  .outcome = parse_outcome(row["winner"], where)};
  check_input(duel.first != duel.second, where, ": a and b are the same prompt");
  return duel;
}

void PromptContest::add(const Duel& duel) {
  nlohmann::ordered_json row = {{"a", prompt(duel.first)}, {"b", prompt(duel.second)}};
  row["winner"] = winner_of(duel);
  written_ += row.dump() + '\n';
  write_file(path_, written_);
  bandit_.add(duel);
}

nlohmann::ordered_json PromptContest::result() const {
  const Duel next = bandit_.next();
  const at::Tensor deviations = bandit_.deviations();
  std::vector<int64_t> met(prompts_.size());
  std::vector<double> wins(prompts_.size());
  for (const Duel& duel : bandit_.duels()) {
    ++met[duel.first];
    ++met[duel.second];
    wins[duel.first] += duel.outcome;
    wins[duel.second] += 1 - duel.outcome;
  }
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const int64_t index : bandit_.ranking()) {
    rows.push_back({{"prompt", prompt(index)},
                    {"mean", bandit_.means()[index].item<double>()},
                    {"width", kZ95 * deviations[index].item<double>()},
                    {"duels", met[index]},
                    {"wins", wins[index]}});
  }
  return {{"duels", num_duels()},
          {"best", prompt(bandit_.best())},
          {"next", {{"a", prompt(next.first)}, {"b", prompt(next.second)}}},
          {"prompts", rows}};
}

std::string PromptContest::text(int64_t count) const {
  const nlohmann::ordered_json all = result();
  std::string text =
      concat("best after ", num_duels(), num_duels() == 1 ? " duel: " : " duels: ", all["best"].get<std::string>(),
             "\n\n   mean   width  duels   wins  prompt\n");
  for (const auto& row : all["prompts"]) {
    if (count-- == 0) break;
    char line[64];
    std::snprintf(line, sizeof line, "%+7.3f %7.3f %6lld %6.1f  ", row["mean"].get<double>(),
                  row["width"].get<double>(), row["duels"].get<long long>(), row["wins"].get<double>());
    text += concat(line, row["prompt"].get<std::string>(), '\n');
  }
  return text;
}

}  // namespace prefusion::tools
