#include "training/reward/reward_metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/rng.h"

namespace prefusion::training {
namespace {

TEST(RewardMetrics, AccuracyLeavesTiesOut) {
  const RewardQuality quality = measure_quality({{2, 1, 0}, {-1, 1, 0}, {-3, 0, 1}, {5, 0.5, 2}, {0, 1, 3}}, 1, 0, 1);
  EXPECT_EQ(quality.pairs, 5);
  EXPECT_EQ(quality.ties, 1);
  EXPECT_EQ(quality.prompts, 4);
  EXPECT_NEAR(quality.accuracy.value, 2.5 / 4, 1e-12);
  EXPECT_NEAR(quality.accuracy_per_prompt.value, (0.5 + 1 + 0.5) / 3, 1e-12);
  EXPECT_LE(quality.accuracy.low, quality.accuracy.value);
  EXPECT_GE(quality.accuracy.high, quality.accuracy.value);
}

TEST(RewardMetrics, TieProtocolGivesHalfWhereOneSideIsATie) {
  const auto with_ties = [](const PairOutcome& outcome, double threshold) {
    return measure_quality({outcome}, 1, threshold, 1).accuracy_with_ties.value;
  };
  const double gap = 2 * std::atanh(0.3);  // p_first - p_second = 0.3
  EXPECT_EQ(with_ties({gap, 1, 0}, 0.25), 1);
  EXPECT_EQ(with_ties({gap, 0, 0}, 0.25), 0);
  EXPECT_EQ(with_ties({gap, 0.5, 0}, 0.25), 0.5);
  EXPECT_EQ(with_ties({gap, 1, 0}, 0.35), 0.5);
  EXPECT_EQ(with_ties({gap, 0.5, 0}, 0.35), 1);
  EXPECT_EQ(with_ties({0, 0.5, 0}, 0), 1);
}

TEST(RewardMetrics, ThresholdIsTheSmallestOfTheBest) {
  const double gap = 2 * std::atanh(0.35);
  EXPECT_EQ(pick_tie_threshold({{gap, 0.5, 0}, {gap / 2, 0.5, 0}, {9, 1, 0}}), 0.4);
  EXPECT_EQ(pick_tie_threshold({{1, 1, 0}, {2, 1, 1}}), 0);
}

// Labels drawn with probability sigmoid(gap / 3) are fitted best by T = 3.
TEST(RewardMetrics, TemperatureIsTheOneOutcomesAreDrawnWith) {
  CounterRng rng({.seed = 4}, RandomPurpose::kOther);
  std::vector<PairOutcome> outcomes;
  for (int64_t i = 0; i < 20000; ++i) {
    const double gap = 6 * rng.normal();
    outcomes.push_back({gap, rng.uniform() < 1 / (1 + std::exp(-gap / 3)) ? 1.0 : 0.0, i});
  }
  const double temperature = fit_temperature(outcomes);
  EXPECT_NEAR(temperature, 3, 0.15);
  outcomes.resize(4000);
  const RewardQuality quality = measure_quality(outcomes, temperature, 0, 1);
  EXPECT_LT(quality.calibrated_log_loss, quality.log_loss);
  EXPECT_LT(quality.calibrated_calibration_error, 0.03);
  EXPECT_GT(quality.calibration_error, 0.06);
  EXPECT_EQ(fit_temperature({{0, 1, 0}}), 1);
}

TEST(RewardMetrics, LogLossIsInNats) {
  const RewardQuality quality = measure_quality({{2, 1, 0}, {1, 0.5, 0}}, 2, 0, 1);
  const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
  EXPECT_NEAR(quality.log_loss, (softplus(-2) + 0.5 * softplus(-1) + 0.5 * softplus(1)) / 2, 1e-12);
  EXPECT_NEAR(quality.calibrated_log_loss, (softplus(-1) + 0.5 * softplus(-0.5) + 0.5 * softplus(0.5)) / 2, 1e-12);
}

TEST(RewardMetrics, SwappedPairsAreJudgedAlike) {
  std::vector<PairOutcome> pairs = {{1.5, 1, 0}, {-0.3, 1, 1}, {0.7, 0, 1}, {0.1, 0.5, 2}}, swapped = pairs;
  for (PairOutcome& outcome : swapped) outcome = {-outcome.gap, 1 - outcome.target, outcome.prompt};
  EXPECT_EQ(to_json(measure_quality(pairs, 1.3, 0.1, 1)), to_json(measure_quality(swapped, 1.3, 0.1, 1)));
  EXPECT_NEAR(fit_temperature(pairs), fit_temperature(swapped), 1e-9);
}

}  // namespace
}  // namespace prefusion::training
