#include "tools/synthesis_ranking.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "core/json_config.h"

namespace prefusion::tools {
namespace {

using reward_models::ScoreStatistics;

// COLUMN=WEIGHT,... -> a weight for each column, 1 where none is given; empty without any.
std::vector<double> parse_weights(const std::vector<std::string>& texts, const std::vector<std::string>& columns) {
  if (texts.empty()) return {};
  std::vector<double> weights(columns.size(), 1.0);
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    const auto column = std::find(columns.begin(), columns.end(), text.substr(0, equals));
    double weight = 0;
    const char* end = text.data() + text.size();
    const bool is_number = equals != std::string::npos &&
                           std::from_chars(text.data() + equals + 1, end, weight).ptr == end && std::isfinite(weight);
    check_usage(is_number && weight > 0, "--reward-weights ", text,
                ": expected COLUMN=WEIGHT with a weight above 0, as in pickscore=2");
    check_usage(column != columns.end(), "--reward-weights ", text, ": there is no reward of that name");
    weights[static_cast<size_t>(column - columns.begin())] = weight;
  }
  return weights;
}

std::map<std::string, std::pair<double, double>> read_statistics(const std::filesystem::path& file) {
  std::map<std::string, std::pair<double, double>> statistics;
  const Json summary = read_json(file);
  check_input(summary.is_object() && summary.contains("statistics") && summary.at("statistics").is_object(),
              file.string(), ": has no object 'statistics'; give the --summary of an earlier run");
  for (const auto& [column, value] : summary.at("statistics").items()) {
    ConfigReader reader(value, file.string() + ": statistics of " + column);
    statistics[column] = {reader.require<double>("mean"), reader.require<double>("std")};
    check_input(statistics[column].second >= 0, file.string(), ": the std of ", column, " is negative");
  }
  return statistics;
}

}  // namespace

ListRanking::ListRanking(const SynthesizeOptions& options, const std::vector<std::string>& columns)
    : kind_(reward_models::aggregate_kind(options.aggregate)), columns_(columns) {
  std::vector<std::string> all = columns;
  if (!options.judgements_file.empty()) {
    all.push_back(data::kJudgementScore);
    judgements_ = data::Judgements::read(options.judgements_file);
  }
  weights_ = parse_weights(options.weights, all);
  const bool is_worst_case =
      kind_.aggregate == reward_models::Aggregate::kWorst || kind_.aggregate == reward_models::Aggregate::kWorstRank;
  check_usage(weights_.empty() || !is_worst_case, "--aggregate ", kind_.name, " knows no --reward-weights");
  of_group_.kind = &kind_;
  if (!weights_.empty()) {
    of_group_.weights.assign(weights_.begin(), weights_.begin() + static_cast<std::ptrdiff_t>(columns.size()));
  }
  if (options.statistics_file.empty()) return;
  check_usage(kind_.needs_statistics, "--score-statistics is read by --aggregate zscore and worst, not by ",
              kind_.name);
  statistics_file_ = options.statistics_file.string();
  given_ = read_statistics(options.statistics_file);
  of_group_.statistics = given(columns);
  if (judgements_) given({data::kJudgementScore});
}

ScoreStatistics ListRanking::given(const std::vector<std::string>& columns) const {
  std::vector<double> mean;
  std::vector<double> std;
  for (const std::string& column : columns) {
    const auto found = given_.find(column);
    check_input(found != given_.end(), statistics_file_, ": has no statistics of ", column);
    mean.push_back(found->second.first);
    std.push_back(found->second.second);
  }
  return {.mean = at::tensor(mean, at::kDouble), .std = at::tensor(std, at::kDouble)};
}

ListRanking::Statistics ListRanking::statistics(const reward_models::RunningStatistics& rewards,
                                                const reward_models::RunningStatistics& judgements) const {
  const bool has_judgements = judgements.count() > 0;
  if (has_statistics()) {
    return {.rewards = given(columns_),
            .judgements = has_judgements ? given({data::kJudgementScore}) : ScoreStatistics{}};
  }
  return {.rewards = rewards.statistics(), .judgements = has_judgements ? judgements.statistics() : ScoreStatistics{}};
}

at::Tensor ListRanking::values(const at::Tensor& scores, bool has_judgements, const ScoreStatistics& statistics) const {
  std::vector<double> weights = weights_;
  if (!weights.empty() && judgements_ && !has_judgements) weights.pop_back();
  return reward_models::aggregate(kind_.aggregate, scores, weights, &statistics);
}

}  // namespace prefusion::tools
