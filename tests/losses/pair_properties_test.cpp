// What the pairwise objectives promise: limits in which they are another objective, values at the start, optima.
#include <gtest/gtest.h>

#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// One pair with a = kappa * s_chosen and b = kappa * s_rejected at the default kappa of 2500.
GroupErrors pair_with(double a, double b) {
  GroupErrors errors;
  errors.error_ref = at::full({1, 2}, 10, at::kDouble);
  errors.error = errors.error_ref - at::tensor({a, b}, at::kDouble).view({1, 2}) / 2500;
  return errors;
}

double chosen_gradient(const std::string& name, const GroupErrors& errors, const std::string& args = "") {
  return gradient_of(name, errors, args)[0][0].item<double>();
}

double rejected_gradient(const std::string& name, const GroupErrors& errors, const std::string& args = "") {
  return gradient_of(name, errors, args)[0][1].item<double>();
}

TEST(PairObjectives, AreDpoInTheirLimits) {
  const GroupErrors errors = make_errors(6, 2);
  const double dpo = loss_of("diffusion-dpo", errors);
  EXPECT_NEAR(loss_of("dpo-f", errors), dpo, 1e-12);
  EXPECT_NEAR(loss_of("dpo-f", errors, "divergence=forward-kl,scale=1000"), dpo, 2e-3);
  EXPECT_NEAR(loss_of("dpo-f", errors, "divergence=alpha,alpha=0.999"), dpo, 2e-3);
  EXPECT_NEAR(loss_of("odpo", errors, "alpha=0"), dpo, 1e-12);
  EXPECT_NEAR(loss_of("poly-dpo", errors, "alpha=0"), dpo, 1e-12);
  EXPECT_NEAR(loss_of("snpo", errors, "lambda=1"), dpo, 1e-12);
  EXPECT_TRUE(near(gradient_of("snpo", errors, "lambda=1"), gradient_of("diffusion-dpo", errors), 1e-9));
}

TEST(PairObjectives, OfAnOddMarginDifferByItWhenSwapped) {
  // softplus(-m) - softplus(m) = -m; the margin of the swapped pair is -m.
  const GroupErrors errors = pair_with(1.5, -0.5);
  const auto margin = [&](const char* name, const char* args) {
    return loss_of(name, swapped(errors), args) - loss_of(name, errors, args);
  };
  EXPECT_NEAR(margin("diffusion-dpo", ""), 2, 1e-9);
  EXPECT_NEAR(margin("dpo-f", "divergence=forward-kl"), -std::exp(-1.5) + std::exp(0.5), 1e-9);
  EXPECT_NEAR(margin("dpo-f", "divergence=jensen-shannon"), log_sigmoid(1.5) - log_sigmoid(-0.5), 1e-9);
}

TEST(DpoF, AlphaZeroIsForwardKl) {
  const GroupErrors errors = make_errors(6, 2);
  EXPECT_NEAR(loss_of("dpo-f", errors, "divergence=alpha,alpha=0"), loss_of("dpo-f", errors, "divergence=forward-kl"),
              1e-12);
}

TEST(DpoF, KeepsPullingPairsBeyondTheCapOfTheExponent) {
  for (const char* args : {"divergence=forward-kl", "divergence=alpha"}) {
    EXPECT_GT(chosen_gradient("dpo-f", pair_with(-100, 0), args), 2500) << args;
    EXPECT_LT(loss_of("dpo-f", pair_with(-100, 0), args), loss_of("dpo-f", pair_with(-101, 0), args));
  }
}

TEST(Exo, IsZeroAtTheLogOddsOfTheLabel) {
  const GroupErrors optimum = pair_with(std::log(0.9 / 0.1), 0);
  EXPECT_NEAR(loss_of("exo", optimum, "label_smoothing=0.1"), 0, 1e-12);
  EXPECT_NEAR(chosen_gradient("exo", optimum, "label_smoothing=0.1"), 0, 1e-8);
  EXPECT_GT(loss_of("exo", pair_with(3, 0), "label_smoothing=0.1"), 1e-3);
}

TEST(Nca, HoldsTheChosenItemAtLogTwo) {
  EXPECT_NEAR(loss_of("nca", pair_with(0, 0)), 2 * std::log(2.0), 1e-12);
  EXPECT_NEAR(chosen_gradient("nca", pair_with(std::log(2.0), -3)), 0, 1e-8);
  EXPECT_LT(rejected_gradient("nca", pair_with(0, 0)), 0);
}

TEST(Bco, ShiftsTheRewardByDelta) {
  EXPECT_NEAR(loss_of("bco", pair_with(0, 0)), 2 * std::log(2.0), 1e-12);
  EXPECT_NEAR(loss_of("bco", pair_with(1.25, 0.5), "delta=0.75"), loss_of("bco", pair_with(0.5, -0.25)), 1e-9);
}

TEST(Apo, ZeroPullsBothWaysAndDownPushesBothDown) {
  EXPECT_NEAR(loss_of("apo-zero", pair_with(0, 0)), 1, 1e-12);
  EXPECT_NEAR(loss_of("apo-zero", pair_with(-1e4, 1e4)), 2, 1e-12);
  EXPECT_NEAR(chosen_gradient("apo-zero", pair_with(0, 0)), 2500 * 0.25, 1e-6);
  EXPECT_NEAR(rejected_gradient("apo-zero", pair_with(0, 0)), -2500 * 0.25, 1e-6);
  // A separated pair: the chosen error may rise as well, the rejected one no longer matters.
  EXPECT_LT(chosen_gradient("apo-down", pair_with(0, -20)), -600);
  EXPECT_NEAR(rejected_gradient("apo-down", pair_with(0, -20)), 0, 1e-3);
  EXPECT_LT(rejected_gradient("apo-down", pair_with(0, 0)), -600);
}

TEST(Sppo, IsLeastAtOneHalfEitherWay) {
  EXPECT_NEAR(loss_of("sppo", pair_with(0.5, -0.5)), 0, 1e-12);
  EXPECT_NEAR(loss_of("sppo", pair_with(0, 0)), 0.5, 1e-12);
}

TEST(DiscoPop, IsLogisticFarBelowAndExponentialFarAbove) {
  EXPECT_NEAR(loss_of("discopop", pair_with(0, 0)), 0.5 * std::log(2.0) + 0.5, 1e-12);
  EXPECT_NEAR(loss_of("discopop", pair_with(-5, 0)), -log_sigmoid(-5), 1e-9);
  EXPECT_NEAR(loss_of("discopop", pair_with(5, 0)), std::exp(-5.0), 1e-9);
}

TEST(Odpo, TakesItsMarginFromTheScoresElseFromTheLabels) {
  GroupErrors errors = pair_with(1, 0);
  EXPECT_NEAR(loss_of("odpo", errors), -log_sigmoid(0), 1e-9);  // a pair without labels is (1, 0)
  errors.labels = at::tensor({0.75, 0.25}, at::kDouble).view({1, 2});
  EXPECT_NEAR(loss_of("odpo", errors), -log_sigmoid(0.5), 1e-9);
  errors.scores = at::tensor({20.0, 22.0}, at::kDouble).view({1, 2});
  EXPECT_NEAR(loss_of("odpo", errors, "alpha=0.5"), -log_sigmoid(2), 1e-9);
}

TEST(Linear, WeighsTheErrorGapAndClampsTheWeight) {
  for (const auto& [kappa_d, weight] :
       std::vector<std::pair<double, double>>{{0, 0.5}, {0.2, 0.3}, {3, 0.01}, {-0.2, 0.7}, {-3, 0.99}}) {
    GroupErrors errors = pair_with(0, 0);
    errors.error = errors.error_ref - at::tensor({kappa_d, 0.0}, at::kDouble).view({1, 2}) / 20;
    EXPECT_NEAR(chosen_gradient("linear", errors, "eta=0.01"), weight, 1e-9);
    EXPECT_NEAR(rejected_gradient("linear", errors, "eta=0.01"), -weight, 1e-9);
    EXPECT_NEAR(loss_of("linear", errors, "eta=0.01"), weight * -kappa_d / 20, 1e-9);
  }
}

TEST(Snpo, StopsPullingSolvedPairs) {
  EXPECT_NEAR(loss_of("snpo", pair_with(50, 0)), std::log(1.1), 1e-9);  // the margin's bound is -log 0.1
  EXPECT_NEAR(loss_of("snpo", pair_with(0, 0)), std::log(2.0), 1e-12);
  EXPECT_LT(chosen_gradient("snpo", pair_with(6, 0)), chosen_gradient("diffusion-dpo", pair_with(6, 0)));
  EXPECT_NEAR(chosen_gradient("snpo", pair_with(-1e4, 0)), 2500, 1e-6);
}

TEST(ReferenceFree, CpoIsSimpoPlusTheChosenErrorAndOrpoItsMultiple) {
  const GroupErrors errors = make_errors(6, 2);
  const double chosen = errors.error.select(1, 0).mean().item<double>();
  EXPECT_NEAR(loss_of("cpo", errors), loss_of("simpo", errors, "gamma=0") + chosen, 1e-12);
  EXPECT_NEAR(loss_of("orpo", errors, "K=2500"), 0.1 * loss_of("cpo", errors, "alpha=10"), 1e-12);
}

TEST(Orpo, LowersTheChosenErrorAndRaisesTheRejected) {
  EXPECT_NEAR(chosen_gradient("orpo", pair_with(0, 0)), 1 + 0.1 * 1000 * 0.5, 1e-9);
  EXPECT_NEAR(rejected_gradient("orpo", pair_with(0, 0)), -0.1 * 1000 * 0.5, 1e-9);
}

}  // namespace
}  // namespace prefusion::losses
