#include "schedulers/gaussian_step.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/rng.h"
#include "tests/support/tensor_near.h"

namespace prefusion::schedulers {
namespace {

using tests::near;

at::Tensor values(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, {.seed = 3, .item = item}, RandomPurpose::kOther);
}

TEST(GaussianStep, DrawsWithTheDeviationOfEachItem) {
  const GaussianStep step{.mean = at::ones({2, 3, 1, 1}), .std = at::tensor({0.5, 2.0}, at::kFloat)};
  const at::Tensor drawn = draw(step, at::full({2, 3, 1, 1}, 4.0, at::kBFloat16));
  EXPECT_TRUE(at::equal(drawn.flatten(1).select(1, 0), at::tensor({3.0, 9.0}, at::kFloat)));
  EXPECT_EQ(drawn.scalar_type(), at::kFloat);
}

TEST(GaussianStep, LogProbIsTheMeanOfElementDensities) {
  const GaussianStep step{.mean = values({3, 4, 5, 6}, 0), .std = at::tensor({0.3, 1.0, 2.5}, at::kFloat)};
  const at::Tensor next = values({3, 4, 5, 6}, 1);
  const at::Tensor found = mean_log_prob(step, next);
  for (int64_t i = 0; i < 3; ++i) {
    const double std = step.std[i].item<float>();
    const at::Tensor z = (next[i].to(at::kDouble) - step.mean[i].to(at::kDouble)) / std;
    const at::Tensor density = (-0.5 * z.square()).exp() / (std * std::sqrt(2 * std::numbers::pi));
    EXPECT_NEAR(found[i].item<float>(), density.log().mean().item<double>(), 1e-5);
  }
}

TEST(GaussianStep, LogProbDoesNotGrowWithTheNumberOfElements) {
  const at::Tensor std = at::ones({1});
  const at::Tensor small = mean_log_prob({.mean = at::zeros({1, 1, 2, 2}), .std = std}, at::ones({1, 1, 2, 2}));
  const at::Tensor large = mean_log_prob({.mean = at::zeros({1, 4, 8, 8}), .std = std}, at::ones({1, 4, 8, 8}));
  EXPECT_EQ(small.item<float>(), large.item<float>());
}

TEST(GaussianStep, LogProbPullsTheMeanTowardsWhatWasDrawn) {
  at::Tensor mean = values({2, 1, 3, 3}, 2).to(at::kDouble).requires_grad_();
  const at::Tensor next = values({2, 1, 3, 3}, 3).to(at::kDouble);
  const at::Tensor std = at::tensor({0.5, 2.0}, at::kDouble);
  mean_log_prob({.mean = mean, .std = std}, next).sum().backward();
  EXPECT_TRUE(near(mean.grad(), (next - mean) / std.square().reshape({2, 1, 1, 1}) / 9, 1e-12));
}

TEST(GaussianStep, KlIsTheExpectedDifferenceOfLogProbs) {
  const at::Tensor mean = values({2, 4, 2, 2}, 4);
  const at::Tensor mean_ref = values({2, 4, 2, 2}, 5);
  const at::Tensor std = at::tensor({0.7, 1.6}, at::kFloat);
  // The log-ratio is linear in what is drawn, so its expectation is its value at the mean.
  const at::Tensor expected =
      mean_log_prob({.mean = mean, .std = std}, mean) - mean_log_prob({.mean = mean_ref, .std = std}, mean);
  EXPECT_TRUE(near(mean_kl(mean, mean_ref, std), expected, 1e-5));
  EXPECT_TRUE(at::equal(mean_kl(mean, mean, std), at::zeros({2})));
}

TEST(GaussianStep, RefusesGradientsThroughWhatWasDrawn) {
  const GaussianStep step{.mean = at::zeros({1, 2}), .std = at::ones({1})};
  EXPECT_THROW(mean_log_prob(step, at::zeros({1, 2}).requires_grad_()), Error);
}

}  // namespace
}  // namespace prefusion::schedulers
