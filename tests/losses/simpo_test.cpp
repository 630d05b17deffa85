#include <gtest/gtest.h>

#include "tests/losses/make_errors.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

GroupErrors one_pair(double chosen, double rejected) {
  GroupErrors errors;
  errors.error = at::tensor({chosen, rejected}, at::kDouble).view({1, 2});
  return errors;
}

TEST(Simpo, NeedsTheLogitToExceedGamma) {
  const double u = 2500 * (0.1004 - 0.1);
  EXPECT_NEAR(loss_of("simpo", one_pair(0.1, 0.1004)), -log_sigmoid(u - 0.5), 1e-9);
  EXPECT_NEAR(loss_of("simpo", one_pair(0.1, 0.1004), "gamma=2"), -log_sigmoid(u - 2), 1e-9);
  EXPECT_NEAR(loss_of("simpo", one_pair(0.1, 0.1), "gamma=0"), std::log(2.0), 1e-12);
}

TEST(Simpo, LowersTheChosenErrorAndRaisesTheRejected) {
  const at::Tensor grad = gradient_of("simpo", one_pair(0.1, 0.1));
  EXPECT_GT(grad[0][0].item<double>(), 0);
  EXPECT_LT(grad[0][1].item<double>(), 0);
}

}  // namespace
}  // namespace prefusion::losses
