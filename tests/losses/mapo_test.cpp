#include "losses/mapo.h"

#include <gtest/gtest.h>

#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// z / (exp(z) - 1) and its derivative in 80-bit arithmetic; series where the quotient cancels.
long double reference_value(long double z) {
  return z == 0 ? 1 : z / std::expm1(z);
}
long double reference_slope(long double z) {
  if (z < 1e-4L) return -0.5L + z / 6;
  const long double q = std::exp(-z) / -std::expm1(-z);  // 1 / (exp(z) - 1)
  return q - z * q * (1 + q);
}

TEST(BernoulliFunction, IsExactWithItsGradientEverywhere) {
  const std::vector<double> points = {0,   1e-30, 1e-8, 1e-4, 1e-2, 0.1, 0.499999, 0.5, 0.500001,
                                      0.7, 1,     5,    25,   88,   250, 1000,     1e6, 1e30};
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const double tolerance = dtype == at::kDouble ? 5e-12 : 5e-6;
    for (const double point : points) {
      const at::Tensor z = at::full({}, point, dtype).requires_grad_();
      const at::Tensor value = bernoulli_function(z);
      value.backward();
      const long double exact = z.item<double>();
      EXPECT_NEAR(value.item<double>(), static_cast<double>(reference_value(exact)), tolerance) << point;
      EXPECT_NEAR(z.grad().item<double>(), static_cast<double>(reference_slope(exact)), tolerance) << point;
    }
  }
}

TEST(Mapo, EqualsTheCodeForm) {
  GroupErrors errors;
  errors.error = at::tensor({0.10, 0.12, 0.3, 0.2}, at::kDouble).view({2, 2});
  const auto h = [](double e) { return 0.5 * e / (std::exp(0.5 * e) - 1); };
  const double expected =
      (0.10 + 0.3) / 2 - 0.1 * (log_sigmoid(1000 * (h(0.10) - h(0.12))) + log_sigmoid(1000 * (h(0.3) - h(0.2)))) / 2;
  EXPECT_NEAR(loss_of("mapo", errors), expected, 1e-9);
}

TEST(Mapo, NeedsNoReferenceAndIsLogTwoAboveTheChosenErrorForEqualErrors) {
  for (const double e : {0.0, 1e-8, 1.0, 50.0, 500.0}) {
    GroupErrors errors;
    errors.error = at::full({2, 2}, e, at::kDouble);
    EXPECT_NEAR(loss_of("mapo", errors), e + 0.1 * std::log(2.0), 1e-9);
    const at::Tensor grad = gradient_of("mapo", errors);
    // 1 + weight * T * |h'(e)| / 2 * snr for the chosen error, over the batch of two.
    const double slope = 0.5 * static_cast<double>(reference_slope(0.5L * e));
    EXPECT_NEAR(grad[0][0].item<double>(), (1 - 0.1 * 1000 * 0.5 * slope) / 2, 1e-8) << e;
    EXPECT_NEAR(grad[0][1].item<double>(), 0.1 * 1000 * 0.5 * slope / 2, 1e-8) << e;
  }
}

TEST(Mapo, TakesItsConstantsAsParameters) {
  GroupErrors errors;
  errors.error = at::tensor({0.10, 0.12}, at::kDouble).view({1, 2});
  const auto h = [](double e) { return 2 * e / (std::exp(2 * e) - 1); };
  EXPECT_NEAR(loss_of("mapo", errors, "snr=2,weight=3,T=10"), 0.10 - 3 * log_sigmoid(10 * (h(0.10) - h(0.12))), 1e-10);
}

}  // namespace
}  // namespace prefusion::losses
