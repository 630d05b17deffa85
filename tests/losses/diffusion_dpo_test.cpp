#include <gtest/gtest.h>

#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

TEST(DiffusionDpo, IsLogTwoWhenPolicyEqualsReference) {
  GroupErrors errors = make_errors(3, 2);
  errors.error = errors.error_ref.clone();
  const LossOutput output = compute("diffusion-dpo", errors);
  EXPECT_NEAR(output.loss.item<double>(), std::log(2.0), 1e-12);
  EXPECT_EQ(output.metrics.at("accuracy").item<double>(), 0.5);
  EXPECT_EQ(output.metrics.at("margin").item<double>(), 0.0);
  // The gradient does not vanish there: kappa / 2 down for the chosen error, up for the rejected, over the batch.
  const at::Tensor expected = at::tensor({1250.0 / 3, -1250.0 / 3}, at::kDouble).expand({3, 2});
  EXPECT_TRUE(near(gradient_of("diffusion-dpo", errors), expected, 1e-12));
}

TEST(DiffusionDpo, EqualsThePublishedFormula) {
  GroupErrors errors;
  errors.error = at::tensor({0.100, 0.120, 0.090, 0.080}, at::kDouble).view({2, 2});
  errors.error_ref = at::tensor({0.1005, 0.1201, 0.0899, 0.0803}, at::kDouble).view({2, 2});
  // -log sigmoid(-(beta / 2) * [(error_chosen - error_rejected) - (error_ref_chosen - error_ref_rejected)]), beta 5000
  const double inside0 = (0.100 - 0.120) - (0.1005 - 0.1201);
  const double inside1 = (0.090 - 0.080) - (0.0899 - 0.0803);
  const double expected = -(log_sigmoid(-2500 * inside0) + log_sigmoid(-2500 * inside1)) / 2;
  EXPECT_NEAR(loss_of("diffusion-dpo", errors), expected, 1e-10);
}

TEST(DiffusionDpo, SwappingThePairNegatesTheLogitAndMirrorsTheGradient) {
  const GroupErrors errors = make_errors(5, 2);
  const LossOutput forward = compute("diffusion-dpo", errors);
  const LossOutput backward = compute("diffusion-dpo", swapped(errors));
  // softplus(-u) - softplus(u) = -u
  const at::Tensor s = errors.error_ref - errors.error;
  const at::Tensor u = 2500 * (s.select(1, 0) - s.select(1, 1));
  EXPECT_TRUE(near(forward.group_loss - backward.group_loss, -u, 1e-10));
  EXPECT_NEAR(forward.metrics.at("margin").item<double>(), -backward.metrics.at("margin").item<double>(), 1e-12);
  EXPECT_NEAR(forward.metrics.at("accuracy").item<double>() + backward.metrics.at("accuracy").item<double>(), 1, 1e-12);
  const at::Tensor grad = gradient_of("diffusion-dpo", errors);
  EXPECT_TRUE(near(grad.select(1, 0), 2500 * at::sigmoid(-u) / 5, 1e-10));
  EXPECT_TRUE(near(grad.select(1, 0), -grad.select(1, 1), 1e-12));
}

TEST(DiffusionDpo, LinkIsInsideTheMeanOverGroups) {
  GroupErrors errors;  // two groups with opposite logits: averaging before the link would give log 2
  errors.error_ref = at::full({2, 2}, 0.1, at::kDouble);
  errors.error = at::tensor({0.099, 0.101, 0.101, 0.099}, at::kDouble).view({2, 2});
  EXPECT_NEAR(loss_of("diffusion-dpo", errors), -(log_sigmoid(5.0) + log_sigmoid(-5.0)) / 2, 1e-9);
}

TEST(DiffusionDpo, MeanErrorsWithKappaEqualSummedErrorsWithKappaOverD) {
  constexpr double kElements = 16384;
  const Objective& objective = find_objective("diffusion-dpo");
  const GroupErrors mean = make_errors(3, 2);
  GroupErrors sum = mean;
  sum.error = mean.error * kElements;
  sum.error_ref = mean.error_ref * kElements;
  const at::Tensor expected = objective.compute(mean, resolve_params(objective.info, "", {}, 2500.0)).group_loss;
  const at::Tensor found =
      objective.compute(sum, resolve_params(objective.info, "", {}, 2500.0 / kElements)).group_loss;
  EXPECT_TRUE(near(found, expected, 1e-9));
}

}  // namespace
}  // namespace prefusion::losses
