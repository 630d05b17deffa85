#include "schedulers/flow_sde.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/rng.h"
#include "tests/support/tensor_near.h"

namespace prefusion::schedulers {
namespace {

using tests::near;

at::Tensor values(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, {.seed = 5, .item = item}, RandomPurpose::kOther);
}

at::Tensor times(std::initializer_list<double> list) {
  return at::tensor(at::ArrayRef<double>(list), at::kFloat);
}

at::Tensor velocity() {
  return values({3, 4, 2, 2}, 0);
}

at::Tensor sample() {
  return values({3, 4, 2, 2}, 1);
}

TEST(FlowGrpo, WithoutNoiseIsEulersStep) {
  const at::Tensor now = times({1.0, 0.6, 0.1});
  const at::Tensor next = times({0.9, 0.4, 0.0});
  const FlowSdeStep found = flow_grpo_step(velocity(), sample(), now, next, /*noise_level=*/0.0, /*after_one=*/0.9);
  EXPECT_TRUE(at::equal(found.step.mean, sample() + velocity() * (next - now).reshape({3, 1, 1, 1})));
  EXPECT_TRUE(at::equal(found.step.std, at::zeros({3})));
}

TEST(FlowGrpo, FollowsItsFormula) {
  const double t = 0.6, dt = -0.2, a = 0.7;
  const FlowSdeStep found = flow_grpo_step(velocity(), sample(), times({t, t, t}), times({0.4, 0.4, 0.4}), a, 0.9);
  const double sigma = a * std::sqrt(t / (1 - t));
  const at::Tensor mean =
      sample() * (1 + sigma * sigma / (2 * t) * dt) + velocity() * (1 + sigma * sigma * (1 - t) / (2 * t)) * dt;
  EXPECT_TRUE(near(found.step.mean, mean, 1e-6));
  EXPECT_NEAR(found.diffusion[0].item<float>(), sigma, 1e-6);
  EXPECT_NEAR(found.step.std[0].item<float>(), sigma * std::sqrt(-dt), 1e-6);
}

TEST(FlowGrpo, TakesTheFollowingGridValueAtPureNoise) {
  const FlowSdeStep found =
      flow_grpo_step(velocity(), sample(), times({1.0, 1.0, 1.0}), times({0.9, 0.9, 0.9}), 0.7, /*after_one=*/0.9);
  const double sigma = 0.7 * std::sqrt(1 / (1 - 0.9));
  EXPECT_NEAR(found.diffusion[1].item<float>(), sigma, 1e-5);
  // The other factor 1 - t stays zero.
  EXPECT_TRUE(near(found.step.mean, sample() * (1 - sigma * sigma / 2 * 0.1) - velocity() * 0.1, 1e-5));
}

TEST(FlowGrpo, KlOfThePublicCodeLeavesOutTheTimeStep) {
  const FlowSdeStep policy =
      flow_grpo_step(velocity(), sample(), times({0.5, 0.5, 0.5}), times({0.3, 0.3, 0.3}), 0.7, 0.9);
  const at::Tensor mean_ref = policy.step.mean + 0.01 * values({3, 4, 2, 2}, 2);
  const at::Tensor exact = mean_kl(policy.step.mean, mean_ref, policy.step.std);
  EXPECT_TRUE(near(mean_kl(policy.step.mean, mean_ref, policy.diffusion), exact * 0.2, 1e-5));
}

TEST(FlowSde, ComputesInSinglePrecision) {
  const at::Tensor half = velocity().to(at::kBFloat16);
  const FlowSdeStep found = flow_grpo_step(half, half, times({0.5, 0.5, 0.5}), times({0.3, 0.3, 0.3}), 0.7, 0.9);
  EXPECT_EQ(found.step.mean.scalar_type(), at::kFloat);
  const at::Tensor wide = half.to(at::kFloat);
  EXPECT_TRUE(at::equal(
      found.step.mean, flow_grpo_step(wide, wide, times({0.5, 0.5, 0.5}), times({0.3, 0.3, 0.3}), 0.7, 0.9).step.mean));
}

TEST(DanceGrpo, WithoutNoiseIsEulersStep) {
  const FlowSdeStep found = dance_grpo_step(velocity(), sample(), times({1.0, 0.6, 0.1}), times({0.9, 0.4, 0.0}), 0.0);
  const at::Tensor dt = times({-0.1, -0.2, -0.1}).reshape({3, 1, 1, 1});
  EXPECT_TRUE(near(found.step.mean, sample() + velocity() * dt, 1e-6));
}

TEST(DanceGrpo, FollowsItsFormula) {
  const double t = 0.6, dt = -0.2, eta = 0.3;
  const FlowSdeStep found = dance_grpo_step(velocity(), sample(), times({t, t, t}), times({0.4, 0.4, 0.4}), eta);
  const at::Tensor score = -(sample() - (sample() - t * velocity()) * (1 - t)) / (t * t);
  EXPECT_TRUE(near(found.step.mean, sample() + dt * velocity() - 0.5 * eta * eta * score * dt, 1e-6));
  EXPECT_NEAR(found.step.std[2].item<float>(), eta * std::sqrt(-dt), 1e-6);
}

// x_0 normal with deviation 0.5 has an exact velocity linear in x_t, and the variance of x_t is known at every t: a
// stochastic sampler with the right drift reproduces it.
class FlowMarginals : public testing::Test {
 protected:
  static constexpr double kDataVariance = 0.25;
  static double variance(double t) { return (1 - t) * (1 - t) * kDataVariance + t * t; }

  template <typename Step>
  static double final_variance(const Step& take_step) {
    const int count = 4000;
    const double first = 0.99, last = 0.2;
    const at::Tensor one = at::ones({1, 1}, at::kDouble);
    double found = variance(first);
    for (int i = 0; i < count; ++i) {
      const double t = first + (last - first) * i / count;
      const double next = first + (last - first) * (i + 1) / count;
      const at::Tensor exact = one * ((t - (1 - t) * kDataVariance) / variance(t));
      const GaussianStep step = take_step(exact, one, one[0] * t, one[0] * next).step;
      found = found * std::pow(step.mean.item<double>(), 2) + std::pow(step.std.item<double>(), 2);
    }
    return found / variance(last);
  }
};

TEST_F(FlowMarginals, AreThoseOfTheOdeUnderFlowGrpo) {
  const double ratio = final_variance([](const auto& v, const auto& x, const auto& t, const auto& next) {
    return flow_grpo_step(v, x, t, next, 0.7, 0.999);
  });
  EXPECT_NEAR(ratio, 1.0, 3e-3);
}

TEST_F(FlowMarginals, AreThoseOfTheOdeUnderDanceGrpo) {
  const double ratio = final_variance([](const auto& v, const auto& x, const auto& t, const auto& next) {
    return dance_grpo_step(v, x, t, next, 0.7);
  });
  EXPECT_NEAR(ratio, 1.0, 3e-3);
}

}  // namespace
}  // namespace prefusion::schedulers
