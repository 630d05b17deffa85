#include "training/auto_kappa.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace prefusion::training {
namespace {

// Pairs whose D is +-difference.
losses::GroupErrors errors_of(double difference) {
  losses::GroupErrors errors;
  errors.error = at::tensor({1.0, 1.0 + difference, 1.0, 1.0 - difference}, at::kDouble).view({2, 2});
  errors.error_ref = at::ones({2, 2}, at::kDouble);
  return errors;
}

TEST(AutoKappa, BringsTheGradientFactorToItsTarget) {
  AutoKappa kappa(0.2, 1000);
  const double value = kappa.observe(errors_of(1e-3));
  EXPECT_NEAR(1 / (1 + std::exp(value * 1e-3)), 0.2, 1e-9);
}

TEST(AutoKappa, FollowsTheRunningMean) {
  AutoKappa kappa(0.2, 1000);
  kappa.observe(errors_of(1e-3));
  const double mean = 0.99 * 1e-3 + 0.01 * 3e-3;
  EXPECT_NEAR(kappa.observe(errors_of(3e-3)), std::log(4.0) / mean, 1e-6);
}

TEST(AutoKappa, StaysAtTheStartWhileNothingDiffersAndWithinAFactorOf100) {
  AutoKappa kappa(0.2, 1000);
  EXPECT_EQ(kappa.observe(errors_of(0)), 1000);
  EXPECT_EQ(kappa.observe(errors_of(1e-9)), 100000);
  AutoKappa large(0.2, 1000);
  EXPECT_EQ(large.observe(errors_of(1e3)), 10);
}

TEST(AutoKappa, GoesOnFromItsState) {
  AutoKappa whole(0.2, 1000), second(0.2, 1000);
  const double kappa = whole.observe(errors_of(1e-3));
  EXPECT_EQ(second.load_state(whole.state()), kappa);
  EXPECT_EQ(second.observe(errors_of(2e-3)), whole.observe(errors_of(2e-3)));
}

}  // namespace
}  // namespace prefusion::training
