#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/losses/make_errors.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

TEST(Sft, IsTheErrorOfTheChosenItem) {
  GroupErrors errors;
  errors.error = at::tensor({0.1, 0.5, 0.3, 0.9}, at::kDouble).view({2, 2});
  EXPECT_NEAR(loss_of("sft", errors), 0.2, 1e-12);
  errors.error = errors.error.view({4, 1});
  EXPECT_NEAR(loss_of("sft", errors), 0.45, 1e-12);
}

TEST(Sft, TakesTheBestItemOfAList) {
  GroupErrors errors;
  errors.error = at::tensor({0.1, 0.5, 0.3}, at::kDouble).view({1, 3});
  errors.labels = at::tensor({0.2, 0.4, 0.9}, at::kDouble).view({1, 3});
  EXPECT_NEAR(loss_of("sft", errors), 0.3, 1e-12);
  errors.labels = at::Tensor();
  EXPECT_THROW(loss_of("sft", errors), Error);
}

}  // namespace
}  // namespace prefusion::losses
