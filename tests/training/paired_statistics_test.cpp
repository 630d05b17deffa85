#include "training/paired_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/rng.h"

namespace prefusion::training {
namespace {

std::vector<int64_t> one_cluster_each(size_t count) {
  std::vector<int64_t> clusters(count);
  std::iota(clusters.begin(), clusters.end(), int64_t{0});
  return clusters;
}

std::vector<double> normals(size_t count, uint64_t seed) {
  CounterRng rng({.seed = seed}, RandomPurpose::kNoise);
  std::vector<double> values(count);
  for (double& value : values) value = 3 + 2 * rng.normal();
  return values;
}

TEST(BootstrapMean, AgreesWithTheNormalIntervalForManyValues) {
  const std::vector<double> values = normals(400, 1);
  const Interval found = bootstrap_mean(values, one_cluster_each(values.size()), 0);
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / 400;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double reach = 1.96 * std::sqrt(squares / 400 / 400);
  EXPECT_DOUBLE_EQ(found.value, mean);
  EXPECT_NEAR(found.high - mean, reach, 0.12 * reach);
  EXPECT_NEAR(mean - found.low, reach, 0.12 * reach);
}

TEST(BootstrapMean, IsAFunctionOfTheSeed) {
  const std::vector<double> values = normals(50, 2);
  const auto clusters = one_cluster_each(50);
  EXPECT_EQ(bootstrap_mean(values, clusters, 7).low, bootstrap_mean(values, clusters, 7).low);
  EXPECT_NE(bootstrap_mean(values, clusters, 7).low, bootstrap_mean(values, clusters, 8).low);
}

TEST(BootstrapMean, RepeatedPicturesOfAPromptAreNoNewEvidence) {
  const std::vector<double> values = normals(60, 3);
  std::vector<double> repeated;
  std::vector<int64_t> clusters;
  for (size_t i = 0; i < values.size(); ++i) {
    for (int copy = 0; copy < 4; ++copy) {
      repeated.push_back(values[i]);
      clusters.push_back(static_cast<int64_t>(i));
    }
  }
  const Interval once = bootstrap_mean(values, one_cluster_each(values.size()), 0);
  const Interval clustered = bootstrap_mean(repeated, clusters, 0);
  const Interval naive = bootstrap_mean(repeated, one_cluster_each(repeated.size()), 0);
  EXPECT_NEAR(clustered.high - clustered.low, once.high - once.low, 1e-9);
  EXPECT_LT(naive.high - naive.low, 0.65 * (clustered.high - clustered.low));
}

TEST(BootstrapMean, RefusesNothingToAverage) {
  EXPECT_THROW(bootstrap_mean({}, {}, 0), Error);
  const std::vector<double> values = {1, 2};
  EXPECT_THROW(bootstrap_mean(values, one_cluster_each(3), 0), Error);
}

TEST(CompareShares, CountsGainsAndLosses) {
  const std::vector<double> before = {1, 1, 0, 0, 0, 1};
  const std::vector<double> after = {1, 0, 1, 1, 0, 1};
  const PairedShares found = compare_shares(before, after);
  EXPECT_EQ(found.both, 2);
  EXPECT_EQ(found.gained, 2);
  EXPECT_EQ(found.lost, 1);
  EXPECT_EQ(found.neither, 1);
  EXPECT_NEAR(found.difference.value, 1.0 / 6, 1e-12);
}

TEST(CompareShares, IndependentHalvesHaveTheRootSumSquareOfTheirWilsonIntervals) {
  // Wilson at 50 of 100 reaches 0.0961739 to each side; the correlation is 0.
  const PairedShares found = compare_shares(25, 25, 25, 25);
  EXPECT_NEAR(found.difference.high, std::sqrt(2.0) * 0.0961739, 1e-5);
  EXPECT_NEAR(found.difference.low, -std::sqrt(2.0) * 0.0961739, 1e-5);
}

TEST(CompareShares, SwappingBeforeAndAfterMirrorsTheInterval) {
  const PairedShares forward = compare_shares(150, 31, 12, 107);
  const PairedShares backward = compare_shares(150, 12, 31, 107);
  EXPECT_NEAR(forward.difference.low, -backward.difference.high, 1e-12);
  EXPECT_NEAR(forward.difference.high, -backward.difference.low, 1e-12);
  EXPECT_EQ(forward.p_value, backward.p_value);
  EXPECT_GT(forward.difference.low, 0);
}

TEST(CompareShares, ExactMcNemarIsTheBinomialTail) {
  EXPECT_NEAR(compare_shares(10, 9, 1, 10).p_value, 2 * (1 + 10) / 1024.0, 1e-12);
  EXPECT_EQ(compare_shares(10, 3, 3, 10).p_value, 1);
  EXPECT_EQ(compare_shares(10, 0, 0, 10).p_value, 1);
}

TEST(CompareShares, PairingNarrowsTheInterval) {
  const PairedShares tied = compare_shares(150, 10, 10, 130);
  const PairedShares loose = compare_shares(85, 75, 75, 65);
  EXPECT_LT(tied.difference.high - tied.difference.low, 0.6 * (loose.difference.high - loose.difference.low));
}

TEST(CompareShares, IntervalCoversTheTruthNineteenTimesInTwenty) {
  // Right before with 0.6; afterwards a right one is lost with 0.1 and a wrong one gained with 0.25.
  constexpr double kTruth = 0.4 * 0.25 - 0.6 * 0.1;
  constexpr int kTrials = 2000;
  CounterRng rng({.seed = 11}, RandomPurpose::kOther);
  int covered = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> before, after;
    for (int i = 0; i < 120; ++i) {
      const bool was = rng.uniform() < 0.6;
      before.push_back(was);
      after.push_back(rng.uniform() < (was ? 0.9 : 0.25));
    }
    const Interval found = compare_shares(before, after).difference;
    covered += found.low <= kTruth && kTruth <= found.high;
  }
  EXPECT_GT(covered, 0.93 * kTrials);
  EXPECT_LT(covered, 0.98 * kTrials);
}

TEST(CompareShares, RefusesUnequalLengthsAndNothing) {
  const std::vector<double> two = {1, 0}, three = {1, 0, 1};
  EXPECT_THROW(compare_shares(two, three), Error);
  EXPECT_THROW(compare_shares(0, 0, 0, 0), Error);
}

}  // namespace
}  // namespace prefusion::training
