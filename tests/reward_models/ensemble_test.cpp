#include "reward_models/ensemble.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/support/tensor_near.h"

namespace prefusion::reward_models {
namespace {

using tests::near;

at::Tensor column(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble);
}

// Three items under two models; the second has its items 1 and 2 tied.
at::Tensor scores() {
  return at::stack({column({20.0, 22.0, 21.0}), column({0.5, 0.2, 0.2})}, 1);
}

ScoreStatistics statistics() {
  return {.mean = column({21.0, 0.3}), .std = column({2.0, 0.1})};
}

TEST(Ensemble, WinsAreStrictAndShared) {
  // Wins: 0 + 2, 2 + 0, 1 + 0 of 2 models * 2 rivals.
  EXPECT_TRUE(near(aggregate(Aggregate::kWins, scores()), column({0.5, 0.5, 0.25}), 1e-12));
}

TEST(Ensemble, WinsAreMultiplesOfOneOverModelsTimesRivals) {
  at::manual_seed(1);
  const at::Tensor many = at::randn({4, 5}, at::kDouble);
  const at::Tensor phi = aggregate(Aggregate::kWins, many);
  EXPECT_TRUE(near(phi * 15, (phi * 15).round(), 1e-12));
  EXPECT_NEAR(phi.sum().item<double>(), 2.0, 1e-12);  // every contest has a winner: k / 2
}

// 1/3 + 2/3 + 0 and 2/3 + 0 + 1/3 of the rivals are the same share, to the bit.
TEST(Ensemble, EqualSharesAreEqualInAnyOrder) {
  const at::Tensor tied = at::stack({column({1, 2, 0, 3}), column({2, 0, 1, 3}), column({0, 1, 2, 3})}, 1);
  const at::Tensor phi = aggregate(Aggregate::kWins, tied);
  EXPECT_TRUE(at::equal(phi, column({3.0 / 9, 3.0 / 9, 3.0 / 9, 1})));
  EXPECT_TRUE(at::equal(places(phi), column({1, 1, 1, 0})));
}

TEST(Ensemble, WinsDoNotDependOnScales) {
  const at::Tensor stretched = scores() * column({1000, 1e-6}) - column({7, 3});
  EXPECT_TRUE(at::equal(aggregate(Aggregate::kWins, stretched), aggregate(Aggregate::kWins, scores())));
  EXPECT_FALSE(at::equal(aggregate(Aggregate::kMean, stretched), aggregate(Aggregate::kMean, scores())));
}

TEST(Ensemble, MeanTakesScoresAsTheyAre) {
  EXPECT_TRUE(near(aggregate(Aggregate::kMean, scores()), column({10.25, 11.1, 10.6}), 1e-12));
}

TEST(Ensemble, RanksShareThePlacesOfATie) {
  EXPECT_TRUE(near(ranks(scores()), at::stack({column({2, 0, 1}), column({0, 1.5, 1.5})}, 1), 1e-12));
}

TEST(Ensemble, RankIsTheMeanRankTurnedRound) {
  // Mean ranks 1, 0.75, 1.25 of at most 2.
  EXPECT_TRUE(near(aggregate(Aggregate::kRank, scores()), column({0.5, 0.625, 0.375}), 1e-12));
}

TEST(Ensemble, ZScoresCountInDeviations) {
  const at::Tensor expected = at::stack({column({-0.5, 0.5, 0.0}), column({2, -1, -1})}, 1);
  const ScoreStatistics of_set = statistics();
  EXPECT_TRUE(near(z_scores(scores(), of_set), expected, 1e-12));
  EXPECT_TRUE(near(aggregate(Aggregate::kZScore, scores(), {}, &of_set), column({0.75, -0.25, -0.5}), 1e-12));
}

TEST(Ensemble, AModelWithoutSpreadHasNoSay) {
  const ScoreStatistics flat{.mean = column({21.0, 0.3}), .std = column({2.0, 0.0})};
  EXPECT_TRUE(near(aggregate(Aggregate::kZScore, scores(), {}, &flat), column({-0.25, 0.25, 0.0}), 1e-12));
}

TEST(Ensemble, WorstCaseIsThatOfTheSeverestModel) {
  const ScoreStatistics of_set = statistics();
  EXPECT_TRUE(near(aggregate(Aggregate::kWorst, scores(), {}, &of_set), column({-0.5, -1, -1}), 1e-12));
  EXPECT_TRUE(near(aggregate(Aggregate::kWorstRank, scores()), column({0, 0.25, 0.25}), 1e-12));
}

TEST(Ensemble, WeightsAreSharesOfTheMean) {
  EXPECT_TRUE(near(aggregate(Aggregate::kMean, scores(), {3, 1}), column({15.125, 16.55, 15.8}), 1e-12));
  EXPECT_TRUE(near(aggregate(Aggregate::kWins, scores(), {3, 1}), column({0.25, 0.75, 0.375}), 1e-12));
  EXPECT_TRUE(near(aggregate(Aggregate::kMean, scores(), {30, 10}), column({15.125, 16.55, 15.8}), 1e-12));
  EXPECT_THROW(aggregate(Aggregate::kMean, scores(), {1}), Error);
  EXPECT_THROW(aggregate(Aggregate::kMean, scores(), {1, 0}), Error);
  EXPECT_THROW(aggregate(Aggregate::kWorstRank, scores(), {1, 2}), Error);
}

TEST(Ensemble, AnItemWithoutRivalsWinsNothing) {
  const at::Tensor one = at::ones({1, 3}, at::kDouble);
  EXPECT_TRUE(at::equal(aggregate(Aggregate::kWins, one), column({0})));
  EXPECT_TRUE(at::equal(places(column({4})), column({0})));
}

TEST(Ensemble, EqualItemsShareAPlace) {
  EXPECT_TRUE(at::equal(places(column({0.5, 0.75, 0.5, 0.25})), column({1, 0, 1, 3})));
}

TEST(Ensemble, DisagreementIsTheSpreadOfZScores) {
  EXPECT_TRUE(near(disagreement(scores(), statistics()), column({1.25, 0.75, 0.5}), 1e-12));
  EXPECT_TRUE(
      at::equal(disagreement(scores().slice(1, 0, 1), {.mean = column({0}), .std = column({1})}), column({0, 0, 0})));
}

TEST(Ensemble, DiscordantPairsAreOrderedInOppositeWays) {
  // Items (0, 1) and (0, 2) are ordered by both, each time in opposite ways; (1, 2) ties under the second.
  const Discordance found = discordance(scores());
  EXPECT_EQ(found.ordered, 2);
  EXPECT_EQ(found.discordant, 2);
  const Discordance of_three = discordance(at::cat({scores(), scores().slice(1, 0, 1)}, 1));
  EXPECT_EQ(of_three.ordered, 7);     // 3 of models 0 and 2, 2 of each other pair
  EXPECT_EQ(of_three.discordant, 4);  // all but the 3
  EXPECT_EQ(discordance(scores().slice(1, 0, 1)).share(), 0.0);
}

TEST(Ensemble, RunningStatisticsAreThoseOfAllScores) {
  at::manual_seed(2);
  const at::Tensor all = at::randn({23, 3}, at::kDouble) * column({1, 50, 1e-3}) + column({0, 1e6, 3});
  RunningStatistics running;
  EXPECT_THROW(running.statistics(), Error);
  running.add(all.slice(0, 0, 4));
  running.add(all.slice(0, 4, 23));
  EXPECT_EQ(running.count(), 23);
  EXPECT_TRUE(near(running.statistics().mean, all.mean(0), 1e-12));
  EXPECT_TRUE(near(running.statistics().std, all.std(0, /*unbiased=*/false), 1e-9));
}

TEST(Ensemble, RefusesWhatItCannotCompare) {
  EXPECT_THROW(aggregate(Aggregate::kZScore, scores()), Error);
  EXPECT_THROW(aggregate(Aggregate::kWins, at::full({2, 1}, NAN, at::kDouble)), Error);
  EXPECT_THROW(aggregate(Aggregate::kWins, at::zeros({0, 2}, at::kDouble)), Error);
  EXPECT_THROW(aggregate_kind("best"), Error);
  EXPECT_EQ(aggregate_kind("worst-rank").aggregate, Aggregate::kWorstRank);
}

}  // namespace
}  // namespace prefusion::reward_models
