// What every objective of the registry must satisfy; a new one is covered without a change here.
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using prefusion::tests::make_errors_for;
using prefusion::tests::near;

class AllObjectives : public testing::TestWithParam<const Objective*> {
 protected:
  const Objective& objective() const { return *GetParam(); }
  ObjectiveParams params() const { return resolve_params(objective().info, "", std::nullopt, std::nullopt); }
};

TEST_P(AllObjectives, GradientEqualsFiniteDifferences) {
  for (const uint64_t seed : {1, 2, 3}) {
    GroupErrors errors = make_errors_for(objective().info, 3, seed);
    errors.weights = at::tensor({1.0, 0.5, 2.0}, at::kDouble);
    errors.error.requires_grad_();
    const at::Tensor loss = objective().compute(errors, params()).loss;
    loss.backward();
    const at::Tensor grad = errors.error.grad().flatten();
    constexpr double kStep = 1e-7;  // kappa * step stays far below 1
    at::Tensor expected = at::empty_like(grad);
    for (int64_t j = 0; j < grad.numel(); ++j) {
      const auto value = [&](double step) {
        GroupErrors moved = errors;
        moved.error = errors.error.detach().clone();
        moved.error.view({-1})[j] += step;
        return objective().compute(moved, params()).loss.item<double>();
      };
      expected[j] = (value(kStep) - value(-kStep)) / (2 * kStep);
    }
    EXPECT_TRUE(near(grad, expected, 2e-5)) << grad << expected;
    EXPECT_GT(grad.abs().max().item<double>(), 0);
  }
}

TEST_P(AllObjectives, LossIsTheMeanOfTheWeightedGroupLosses) {
  GroupErrors errors = make_errors_for(objective().info, 4);
  const LossOutput plain = objective().compute(errors, params());
  ASSERT_EQ(plain.group_loss.sizes(), at::IntArrayRef({4}));
  EXPECT_EQ(plain.loss.dim(), 0);
  EXPECT_TRUE(near(plain.loss, plain.group_loss.mean(), 1e-12));
  errors.weights = at::tensor({1.0, 0.0, 3.0, 0.5}, at::kDouble);
  const LossOutput weighted = objective().compute(errors, params());
  EXPECT_TRUE(near(weighted.group_loss, plain.group_loss * errors.weights, 1e-12));
  EXPECT_TRUE(near(weighted.loss, (plain.group_loss * errors.weights).mean(), 1e-12));
}

TEST_P(AllObjectives, IsFiniteAndFp32AtExtremeErrors) {
  for (const double value : {0.0, 1e-8, 1.0, 50.0, 500.0}) {
    GroupErrors errors = make_errors_for(objective().info, 2);
    errors.error = at::full_like(errors.error, value, at::kFloat).requires_grad_();
    errors.error_ref = errors.error_ref.to(at::kFloat);
    errors.labels = errors.labels.to(at::kFloat);
    const LossOutput output = objective().compute(errors, params());
    output.loss.backward();
    EXPECT_EQ(output.loss.scalar_type(), at::kFloat);
    EXPECT_TRUE(output.loss.isfinite().item<bool>()) << value;
    EXPECT_TRUE(errors.error.grad().isfinite().all().item<bool>()) << value;
  }
}

TEST_P(AllObjectives, ReferenceErrorsCarryNoGradient) {
  if (!objective().info.needs_reference) GTEST_SKIP() << "no reference";
  GroupErrors errors = make_errors_for(objective().info, 2);
  errors.error.requires_grad_();
  errors.error_ref.requires_grad_();
  objective().compute(errors, params()).loss.backward();
  EXPECT_FALSE(errors.error_ref.grad().defined());
}

TEST_P(AllObjectives, MetricsAreDetachedScalars) {
  GroupErrors errors = make_errors_for(objective().info, 4);
  errors.error.requires_grad_();
  const LossOutput output = objective().compute(errors, params());
  EXPECT_TRUE(output.metrics.contains("error_chosen"));
  for (const auto& [name, value] : output.metrics) {
    EXPECT_EQ(value.dim(), 0) << name;
    EXPECT_FALSE(value.requires_grad()) << name;
  }
}

TEST_P(AllObjectives, RefusesBatchesThatDoNotFit) {
  const GroupErrors good = make_errors_for(objective().info, 3);
  const auto call = [&](const GroupErrors& errors) { objective().compute(errors, params()); };
  GroupErrors bad = good;
  bad.error = good.error[0];
  EXPECT_THROW(call(bad), Error);
  bad = good;
  bad.error = good.error.slice(0, 0, 0);
  EXPECT_THROW(call(bad), Error);
  bad = good;
  bad.error_ref = good.error_ref.slice(0, 0, 2);
  EXPECT_THROW(call(bad), Error);
  bad = good;
  bad.weights = at::ones({2});
  EXPECT_THROW(call(bad), Error);
  bad = good;
  bad.error = good.error.to(at::kHalf);
  EXPECT_THROW(call(bad), Error);
  if (objective().info.needs_reference) {
    bad = good;
    bad.error_ref = at::Tensor();
    EXPECT_THROW(call(bad), Error);
  }
  if (objective().info.data == DataKind::kPair) {
    EXPECT_THROW(call(tests::make_errors(3, 3)), Error);
  }
  if (objective().info.data == DataKind::kList) {
    EXPECT_THROW(call(tests::make_errors(3, 1)), Error);
  }
}

std::vector<const Objective*> all() {
  std::vector<const Objective*> pointers;
  for (const Objective& objective : objectives()) pointers.push_back(&objective);
  return pointers;
}

std::string test_name(const testing::TestParamInfo<const Objective*>& info) {
  std::string name = info.param->info.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Registry, AllObjectives, testing::ValuesIn(all()), test_name);

}  // namespace
}  // namespace prefusion::losses
