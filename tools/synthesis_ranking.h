#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/judgements.h"
#include "reward_models/ensemble.h"
#include "tools/group_ranking.h"
#include "tools/synthesis_plan.h"

namespace prefusion::tools {

// How the rewards of a run, and perhaps judgements, are made into one value a picture.
class ListRanking {
 public:
  // Reads the options' weights, statistics and judgements. Usage or input error for what does not fit the rewards.
  ListRanking(const SynthesizeOptions& options, const std::vector<std::string>& columns);

  const reward_models::AggregateKind& kind() const { return kind_; }
  // For comparing candidates of one prompt and model by the rewards alone.
  const GroupRanking& of_group() const { return of_group_; }
  std::optional<data::Judgements>& judgements() { return judgements_; }

  // The statistics to use instead of the set's own, of all columns.
  bool has_statistics() const { return !given_.empty(); }

  struct Statistics {
    reward_models::ScoreStatistics rewards;
    reward_models::ScoreStatistics judgements;  // [1]; undefined without
  };
  // Those given, else those of the set.
  Statistics statistics(const reward_models::RunningStatistics& rewards,
                        const reward_models::RunningStatistics& judgements) const;

  // Values of a list, higher is better: [n, R] scores, with the judgements' column behind them or not.
  at::Tensor values(const at::Tensor& scores, bool has_judgements,
                    const reward_models::ScoreStatistics& statistics) const;

 private:
  reward_models::ScoreStatistics given(const std::vector<std::string>& columns) const;

  const reward_models::AggregateKind& kind_;
  std::vector<std::string> columns_;
  std::vector<double> weights_;                             // of the rewards, then of the judgements; or empty
  std::map<std::string, std::pair<double, double>> given_;  // column -> mean, deviation
  std::string statistics_file_;
  GroupRanking of_group_;
  std::optional<data::Judgements> judgements_;
};

}  // namespace prefusion::tools
