// dpo-ipo, dpo-hinge, dpo-smooth and dpo-robust: other links on the same logit u = kappa * D.
#include <gtest/gtest.h>

#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// One pair whose logit at the default kappa of 2500 is `u`.
GroupErrors pair_with_logit(double u) {
  GroupErrors errors;
  errors.error_ref = at::full({1, 2}, 0.1, at::kDouble);
  errors.error = at::tensor({0.1 - u / 5000, 0.1 + u / 5000}, at::kDouble).view({1, 2});
  return errors;
}

TEST(DpoIpo, IsTheSquaredDistanceOfTheLogitFromOneHalf) {
  for (const double u : {-3.0, 0.0, 0.5, 2.0}) {
    EXPECT_NEAR(loss_of("dpo-ipo", pair_with_logit(u)), (u - 0.5) * (u - 0.5), 1e-9);
  }
  EXPECT_NEAR(gradient_of("dpo-ipo", pair_with_logit(0.5)).abs().max().item<double>(), 0, 1e-6);
}

TEST(DpoHinge, IsFlatBeyondMarginOne) {
  EXPECT_NEAR(loss_of("dpo-hinge", pair_with_logit(-2)), 3, 1e-9);
  EXPECT_NEAR(loss_of("dpo-hinge", pair_with_logit(0)), 1, 1e-9);
  EXPECT_EQ(loss_of("dpo-hinge", pair_with_logit(1.5)), 0);
  EXPECT_EQ(gradient_of("dpo-hinge", pair_with_logit(1.5)).abs().max().item<double>(), 0);
  EXPECT_NEAR(gradient_of("dpo-hinge", pair_with_logit(0)).select(1, 0).item<double>(), 2500, 1e-6);
}

TEST(DpoSmooth, IsDpoWithoutSmoothing) {
  const GroupErrors errors = make_errors(4, 2);
  EXPECT_NEAR(loss_of("dpo-smooth", errors, "label_smoothing=0"), loss_of("diffusion-dpo", errors), 1e-12);
}

TEST(DpoSmooth, MixesBothDirectionsAndIsLeastAtTheLogOddsOfTheLabel) {
  EXPECT_NEAR(loss_of("dpo-smooth", pair_with_logit(2), "label_smoothing=0.2"),
              -0.8 * log_sigmoid(2) - 0.2 * log_sigmoid(-2), 1e-9);
  const GroupErrors optimum = pair_with_logit(std::log(0.8 / 0.2));
  EXPECT_NEAR(gradient_of("dpo-smooth", optimum, "label_smoothing=0.2").abs().max().item<double>(), 0, 1e-6);
}

TEST(DpoRobust, IsDpoWithoutFlips) {
  const GroupErrors errors = make_errors(4, 2);
  EXPECT_NEAR(loss_of("dpo-robust", errors, "label_smoothing=0"), loss_of("diffusion-dpo", errors), 1e-12);
}

TEST(DpoRobust, IsUnbiasedUnderFlippedLabels) {
  // Expectation of the loss over labels flipped with probability eps is DPO on the true label.
  const GroupErrors errors = make_errors(4, 2);
  const double straight = loss_of("dpo-robust", errors, "label_smoothing=0.3");
  const double flipped = loss_of("dpo-robust", swapped(errors), "label_smoothing=0.3");
  EXPECT_NEAR(0.7 * straight + 0.3 * flipped, loss_of("diffusion-dpo", errors), 1e-10);
}

}  // namespace
}  // namespace prefusion::losses
