#include "reward_models/ensemble.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <sstream>

#include "core/error.h"

namespace prefusion::reward_models {
namespace {

void check_scores(const at::Tensor& scores) {
  check_usage(scores.dim() == 2 && scores.scalar_type() == at::kDouble && scores.size(0) > 0 && scores.size(1) > 0,
              "an ensemble takes fp64 scores of k items under R models, found shape ", shape_text(scores.sizes()));
  check_usage(scores.isfinite().all().item<bool>(), "a reward model gave a score that is not finite");
}

void check_weights(const std::vector<double>& weights, int64_t num_models) {
  check_usage(weights.empty() || static_cast<int64_t>(weights.size()) == num_models, "there are ", num_models,
              " reward models, but ", weights.size(), " weights");
  for (const double weight : weights) check_usage(weight > 0, "the weight of a reward model is positive, not ", weight);
}

// Mean over the models of [k, R] / `unit`. Summed model by model and divided once: items with the same numbers, and
// counts that add up to the same, come out equal to the bit, whatever order they stand in.
at::Tensor weighted_mean(const at::Tensor& values, const std::vector<double>& weights, double unit = 1.0) {
  at::Tensor total = at::zeros({values.size(0)}, at::kDouble);
  double sum = 0;
  for (int64_t r = 0; r < values.size(1); ++r) {
    const double weight = weights.empty() ? 1.0 : weights[static_cast<size_t>(r)];
    total = total + values.select(1, r) * weight;
    sum += weight;
  }
  return total / (sum * unit);
}

// [k, k, R]: whether item i is above item j under a model.
at::Tensor is_above(const at::Tensor& scores) {
  return scores.unsqueeze(1) > scores.unsqueeze(0);
}

// How many rivals each item beats under each model, a tie counting `tie_credit`: [k, R].
at::Tensor wins(const at::Tensor& scores, double tie_credit) {
  const at::Tensor above = is_above(scores).to(at::kDouble);
  const at::Tensor ties = 1.0 - above - above.transpose(0, 1);  // an item ties with itself
  return above.sum(1) + tie_credit * (ties.sum(1) - 1.0);
}

double num_rivals(const at::Tensor& scores) {
  return static_cast<double>(std::max<int64_t>(scores.size(0) - 1, 1));
}

const ScoreStatistics& require(const ScoreStatistics* statistics) {
  check_usage(statistics != nullptr, "z-scores need the mean and deviation of each reward model's scores");
  return *statistics;
}

}  // namespace

void RunningStatistics::add(const at::Tensor& scores) {
  check_scores(scores);
  if (count_ == 0) {
    mean_ = at::zeros({scores.size(1)}, at::kDouble);
    squared_error_ = at::zeros_like(mean_);
  }
  for (const at::Tensor& row : scores.unbind(0)) {
    ++count_;
    const at::Tensor before = row - mean_;
    mean_ = mean_ + before / static_cast<double>(count_);
    squared_error_ = squared_error_ + before * (row - mean_);
  }
}

ScoreStatistics RunningStatistics::statistics() const {
  check_usage(count_ > 0, "there are no scores to take statistics of");
  return {.mean = mean_, .std = (squared_error_ / static_cast<double>(count_)).sqrt()};
}

at::Tensor z_scores(const at::Tensor& scores, const ScoreStatistics& statistics) {
  check_scores(scores);
  const at::Tensor has_spread = statistics.std > 0;
  const at::Tensor std = at::where(has_spread, statistics.std, at::ones_like(statistics.std));
  return (scores - statistics.mean) / std * has_spread;
}

at::Tensor win_shares(const at::Tensor& scores, double tie_credit) {
  check_scores(scores);
  return wins(scores, tie_credit) / num_rivals(scores);
}

at::Tensor ranks(const at::Tensor& scores) {
  check_scores(scores);
  return static_cast<double>(scores.size(0) - 1) - wins(scores, 0.5);
}

const std::vector<AggregateKind>& aggregate_kinds() {
  static const std::vector<AggregateKind> kKinds = {
      {Aggregate::kWins, "wins", false, true, "share of strict wins over all reward models and rivals: RankDPO's phi"},
      {Aggregate::kMean, "mean", false, false, "mean score; for rewards of one scale"},
      {Aggregate::kRank, "rank", false, true, "mean rank; orders as wins would if a tie were half a win"},
      {Aggregate::kZScore, "zscore", true, false, "mean of (score - mean) / deviation over the set"},
      {Aggregate::kWorst, "worst", true, false, "least of the rewards' z-scores"},
      {Aggregate::kWorstRank, "worst-rank", false, true, "least of the shares of rivals it beats under each reward"},
  };
  return kKinds;
}

const AggregateKind& aggregate_kind(const std::string& name) {
  std::ostringstream known;
  for (const AggregateKind& kind : aggregate_kinds()) {
    if (kind.name == name) return kind;
    known << (known.tellp() > 0 ? ", " : "") << kind.name;
  }
  fail_usage("--aggregate ", name, " is not known; choose one of ", known.str());
}

at::Tensor aggregate(Aggregate how, const at::Tensor& scores, const std::vector<double>& weights,
                     const ScoreStatistics* statistics) {
  check_scores(scores);
  check_weights(weights, scores.size(1));
  const bool is_worst_case = how == Aggregate::kWorst || how == Aggregate::kWorstRank;
  check_usage(!is_worst_case || weights.empty(), "the worst case over reward models knows no weights");
  switch (how) {
    case Aggregate::kWins: return weighted_mean(wins(scores, 0.0), weights, num_rivals(scores));
    case Aggregate::kMean: return weighted_mean(scores, weights);
    case Aggregate::kRank: return weighted_mean(wins(scores, 0.5), weights, num_rivals(scores));
    case Aggregate::kZScore: return weighted_mean(z_scores(scores, require(statistics)), weights);
    case Aggregate::kWorst: return z_scores(scores, require(statistics)).amin(1);
    case Aggregate::kWorstRank: return win_shares(scores, 0.5).amin(1);
  }
  fail_run("there is no such aggregate");
}

at::Tensor places(const at::Tensor& values) {
  return (values.unsqueeze(0) > values.unsqueeze(1)).sum(1).to(at::kDouble);
}

at::Tensor disagreement(const at::Tensor& scores, const ScoreStatistics& statistics) {
  return z_scores(scores, statistics).std(/*dim=*/1, /*unbiased=*/false);
}

Discordance discordance(const at::Tensor& scores) {
  check_scores(scores);
  const at::Tensor above = is_above(scores).to(at::kDouble);
  const at::Tensor order = (above - above.transpose(0, 1)).flatten(0, 1);  // [k * k, R] -1, 0, 1
  const at::Tensor agreement = order.t().mm(order);                        // [R, R] sums of products over pairs
  const at::Tensor both = order.abs().t().mm(order.abs());
  // Every pair of items stands there twice, and every pair of models.
  const auto pairs = [](const at::Tensor& matrix) {
    return static_cast<int64_t>((matrix.sum() - matrix.trace()).item<double>() / 4);
  };
  const int64_t ordered = pairs(both);
  return {.ordered = ordered, .discordant = (ordered - pairs(agreement)) / 2};
}

}  // namespace prefusion::reward_models
