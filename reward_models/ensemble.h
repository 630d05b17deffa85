#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

// Several reward models as one judge of a list. Everything here is a pure function of scores [k, R] fp64 on the CPU: k
// items of one prompt under R reward models, higher is better, all finite. Reward models differ in scale, so that their
// scores are only ever compared within a model: by order, which needs the list alone, or in units of the model's
// spread over a whole set, which needs ScoreStatistics.
namespace prefusion::reward_models {

// Mean and standard deviation (of the population, not the sample) of each model's scores over a set: fp64 [R].
struct ScoreStatistics {
  at::Tensor mean;
  at::Tensor std;
};

// Statistics of a set that is seen once, list after list, by Welford's update: a first pass over the lists gives those
// of the whole set, and at any time those of the lists so far.
class RunningStatistics {
 public:
  void add(const at::Tensor& scores);  // [n, R]
  int64_t count() const { return count_; }
  ScoreStatistics statistics() const;  // usage error before the first score

 private:
  int64_t count_ = 0;
  at::Tensor mean_;           // [R]
  at::Tensor squared_error_;  // [R] sum of squared distances from the mean
};

// (score - mean) / std; 0 where a model gives everything the same score. [k, R].
at::Tensor z_scores(const at::Tensor& scores, const ScoreStatistics& statistics);

// For each model the share of the k - 1 rivals that an item beats, a tie counting `tie_credit`: [k, R]. An item without
// rivals gets 0.
at::Tensor win_shares(const at::Tensor& scores, double tie_credit);

// Within each model's order, 0 the best, ties sharing the mean of their places: [k, R].
at::Tensor ranks(const at::Tensor& scores);

// How R models become one value an item, higher is better.
enum class Aggregate {
  kWins,       // phi of RankDPO
  kMean,       // mean score: for models of one scale
  kRank,       // mean rank, as the share of rivals it leaves behind: phi with a tie counting one half
  kZScore,     // mean z-score; needs statistics
  kWorst,      // least z-score: good for no model is good; needs statistics
  kWorstRank,  // the same of ranks
};

struct AggregateKind {
  Aggregate aggregate;
  const char* name;  // on the command line, and of the value in a ranked list
  bool needs_statistics;
  bool is_share;  // values lie in [0, 1] and serve as labels
  const char* summary;
};

// All aggregates, in the order they are listed.
const std::vector<AggregateKind>& aggregate_kinds();

// By name; usage error for one that is none.
const AggregateKind& aggregate_kind(const std::string& name);

// One value an item: fp64 [k]. `weights` are the models' shares of every mean, positive with any sum; empty for equal
// ones. The worst case knows no weights: usage error for them, and without the statistics the aggregate needs.
//
// kWins is phi of "Scalable Ranked Preference Optimization for Text-to-Image Generation" (arXiv 2410.18013): phi_i =
// C_i / (R (k - 1)), C_i counting the strict wins of item i over all models and rivals; equal scores are a win for
// neither.
at::Tensor aggregate(Aggregate how, const at::Tensor& scores, const std::vector<double>& weights = {},
                     const ScoreStatistics* statistics = nullptr);

// Places of the items by one value each: the number of items that are strictly better. [k] values -> [k] fp64, 0 the
// best; equal items share a place.
at::Tensor places(const at::Tensor& values);

// How far the models are apart on each item: standard deviation of its z-scores over the models (of the population),
// [k]. 0 for one model.
at::Tensor disagreement(const at::Tensor& scores, const ScoreStatistics& statistics);

// Of the pairs of items that two models both put in an order, for every two models: how many, and how many in opposite
// orders. Needs no statistics.
struct Discordance {
  int64_t ordered = 0;
  int64_t discordant = 0;
  double share() const { return ordered == 0 ? 0.0 : static_cast<double>(discordant) / static_cast<double>(ordered); }
};
Discordance discordance(const at::Tensor& scores);

}  // namespace prefusion::reward_models
