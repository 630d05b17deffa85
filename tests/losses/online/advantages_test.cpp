#include "losses/online/advantages.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using prefusion::tests::near;

at::Tensor rewards() {
  return at::tensor({1.0, 2.0, 6.0, 10.0, 10.0, 40.0}, at::kDouble).view({2, 3});
}

// Population standard deviation.
double deviation(const std::vector<double>& values) {
  double mean = 0, square = 0;
  for (const double value : values) mean += value / static_cast<double>(values.size());
  for (const double value : values) square += (value - mean) * (value - mean) / static_cast<double>(values.size());
  return std::sqrt(square);
}

TEST(StandardisedAdvantage, ComparesWithTheGroupOrTheBatch) {
  const double first = deviation({1, 2, 6}) + 1e-4, second = deviation({10, 10, 40}) + 1e-4;
  const double all = deviation({1, 2, 6, 10, 10, 40}) + 1e-4;
  EXPECT_TRUE(near(standardised_advantage(rewards(), AdvantageScope::kGroup),
                   at::tensor({-2 / first, -1 / first, 3 / first, -10 / second, -10 / second, 20 / second}, at::kDouble)
                       .view({2, 3}),
                   1e-12));
  EXPECT_TRUE(near(standardised_advantage(rewards(), AdvantageScope::kGroupMean),
                   at::tensor({-2 / all, -1 / all, 3 / all, -10 / all, -10 / all, 20 / all}, at::kDouble).view({2, 3}),
                   1e-12));
  EXPECT_TRUE(near(standardised_advantage(rewards(), AdvantageScope::kBatch), (rewards() - 11.5) / all, 1e-12));
}

TEST(StandardisedAdvantage, IsLimited) {
  at::Tensor reward = at::zeros({1, 100}, at::kDouble);
  reward[0][7] = 1;
  const at::Tensor advantage = standardised_advantage(reward, AdvantageScope::kGroup);
  EXPECT_EQ(advantage.max().item<double>(), 5);
  EXPECT_EQ(standardised_advantage(-reward, AdvantageScope::kGroup, 2).min().item<double>(), -2);
}

TEST(StandardisedAdvantage, IsZeroWhereRewardsAreEqual) {
  for (const auto scope : {AdvantageScope::kGroup, AdvantageScope::kGroupMean, AdvantageScope::kBatch}) {
    EXPECT_EQ(standardised_advantage(at::full({2, 4}, 21.5, at::kFloat), scope).abs().max().item<double>(), 0);
  }
  EXPECT_EQ(standardised_advantage(rewards().narrow(1, 0, 1), AdvantageScope::kGroup).abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace prefusion::losses
