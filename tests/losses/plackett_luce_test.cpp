#include <gtest/gtest.h>

#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

TEST(PlackettLuce, ListOfTwoIsDpo) {
  const GroupErrors errors = make_errors(4, 2);
  EXPECT_TRUE(near(compute("plackett-luce", errors).group_loss, compute("diffusion-dpo", errors).group_loss, 1e-10));
  EXPECT_TRUE(near(gradient_of("plackett-luce", errors), gradient_of("diffusion-dpo", errors), 1e-9));
}

TEST(PlackettLuce, IsLogFactorialWhenPolicyEqualsReference) {
  GroupErrors errors = make_errors(3, 5);
  errors.error = errors.error_ref.clone();
  EXPECT_NEAR(loss_of("plackett-luce", errors), std::lgamma(6.0), 1e-10);
}

TEST(PlackettLuce, OrdersByTheLabels) {
  GroupErrors errors;
  errors.error_ref = at::full({1, 3}, 0.1, at::kDouble);
  errors.error = errors.error_ref - at::tensor({1e-4, 4e-4, 2e-4}, at::kDouble).unsqueeze(0);
  errors.labels = at::tensor({0.0, 1.0, 0.5}, at::kDouble).unsqueeze(0);  // order: item 1, item 2, item 0
  const double first = 1.0, second = 0.5, third = 0.25;                   // kappa * s in that order
  const double expected = -(first - std::log(std::exp(first) + std::exp(second) + std::exp(third))) -
                          (second - std::log(std::exp(second) + std::exp(third)));
  EXPECT_NEAR(loss_of("plackett-luce", errors), expected, 1e-9);
}

TEST(PlackettLuce, ProbabilitiesOfAllOrdersSumToOne) {
  GroupErrors errors = make_errors(1, 3);
  std::vector<double> labels = {0, 1, 2};
  double total = 0;
  do {
    errors.labels = at::tensor(labels, at::kDouble).unsqueeze(0);
    total += std::exp(-loss_of("plackett-luce", errors));
  } while (std::next_permutation(labels.begin(), labels.end()));
  EXPECT_NEAR(total, 1, 1e-10);
}

}  // namespace
}  // namespace prefusion::losses
