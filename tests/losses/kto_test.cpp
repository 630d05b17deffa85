#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// g = error_ref - error of four items; labels 1, 0, 1, 0.
GroupErrors items(const std::vector<double>& g) {
  GroupErrors errors;
  errors.error_ref = at::full({4, 1}, 0.1, at::kDouble);
  errors.error = errors.error_ref - at::tensor(g, at::kDouble).unsqueeze(1);
  errors.labels = at::tensor({1.0, 0.0, 1.0, 0.0}, at::kDouble).unsqueeze(1);
  return errors;
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

TEST(Kto, IsOneHalfWhenPolicyEqualsReference) {
  EXPECT_NEAR(loss_of("kto", items({0, 0, 0, 0})), 0.5, 1e-12);
}

TEST(Kto, SubtractsTheClampedBatchMean) {
  const std::vector<double> g = {1e-3, 5e-4, 2e-3, -1e-4};
  const double offset = (1e-3 + 5e-4 + 2e-3 - 1e-4) / 4;
  double expected = 0;
  for (int i = 0; i < 4; ++i) expected += (1 - sigmoid((i % 2 == 0 ? 1 : -1) * 1000 * (g[i] - offset))) / 4;
  EXPECT_NEAR(loss_of("kto", items(g)), expected, 1e-9);

  const std::vector<double> worse = {-1e-3, -5e-4, 1e-4, -2e-3};  // negative mean: the offset is 0
  expected = 0;
  for (int i = 0; i < 4; ++i) expected += (1 - sigmoid((i % 2 == 0 ? 1 : -1) * 1000 * worse[i])) / 4;
  EXPECT_NEAR(loss_of("kto", items(worse)), expected, 1e-9);
}

TEST(Kto, OffsetCarriesNoGradient) {
  const std::vector<double> g = {1e-3, 5e-4, 2e-3, -1e-4};
  const double offset = (1e-3 + 5e-4 + 2e-3 - 1e-4) / 4;
  const at::Tensor grad = gradient_of("kto", items(g));
  for (int i = 0; i < 4; ++i) {
    const double sign = i % 2 == 0 ? 1 : -1;
    const double p = sigmoid(sign * 1000 * (g[i] - offset));
    EXPECT_NEAR(grad[i].item<double>(), sign * 1000 * p * (1 - p) / 4, 1e-6);  // g falls as the error rises
  }
}

TEST(Kto, TakesPairsAsOneDesirableAndOneUndesirableItem) {
  GroupErrors pairs = make_errors(2, 2);
  pairs.labels = at::Tensor();
  GroupErrors flat;
  flat.error = pairs.error.reshape({4, 1});
  flat.error_ref = pairs.error_ref.reshape({4, 1});
  flat.labels = at::tensor({1.0, 0.0, 1.0, 0.0}, at::kDouble).unsqueeze(1);
  EXPECT_NEAR(loss_of("kto", pairs), loss_of("kto", flat), 1e-12);
}

TEST(Kto, NeedsLabels) {
  GroupErrors errors = items({0, 0, 0, 0});
  errors.labels = at::Tensor();
  EXPECT_THROW(loss_of("kto", errors), Error);
}

}  // namespace
}  // namespace prefusion::losses
