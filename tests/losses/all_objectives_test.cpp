// What every objective of the registry must satisfy, with each word of its choices; a new one is covered without a
// change here, unless it has a stop-gradient.
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using prefusion::tests::groups_at;
using prefusion::tests::make_errors_for;
using prefusion::tests::near;

// Differentiate something else than the loss they report; their own tests check the gradient.
bool has_stop_gradient(const std::string& name) {
  return std::set<std::string>{"linear", "dgpo", "sdpo"}.contains(name);
}

struct Variant {
  const Objective* objective;
  std::string args;
};

class AllObjectives : public testing::TestWithParam<Variant> {
 protected:
  const Objective& objective() const { return *GetParam().objective; }
  const std::string& name() const { return objective().info.name; }
  ObjectiveParams params() const {
    return resolve_params(objective().info, GetParam().args, std::nullopt, std::nullopt);
  }
  double loss(const GroupErrors& errors) const { return objective().compute(errors, params()).loss.item<double>(); }

  using Input = at::Tensor GroupErrors::*;

  // d loss / d input, flat, by autograd and by central differences.
  at::Tensor gradient(GroupErrors errors, Input input) const {
    errors.*input = (errors.*input).detach().clone().requires_grad_();
    objective().compute(errors, params()).loss.backward();
    return (errors.*input).grad().flatten();
  }
  at::Tensor finite_differences(const GroupErrors& errors, Input input) const {
    constexpr double kStep = 1e-7;  // kappa * step stays far below 1
    at::Tensor differences = at::empty_like((errors.*input).flatten());
    for (int64_t j = 0; j < differences.numel(); ++j) {
      const auto moved = [&](double step) {
        GroupErrors other = errors;
        other.*input = (errors.*input).clone();
        (other.*input).view({-1})[j] += step;
        return loss(other);
      };
      differences[j] = (moved(kStep) - moved(-kStep)) / (2 * kStep);
    }
    return differences;
  }
};

TEST_P(AllObjectives, GradientEqualsFiniteDifferences) {
  if (has_stop_gradient(name())) GTEST_SKIP() << "differentiates something else than its loss";
  for (const uint64_t seed : {1, 2, 3}) {
    GroupErrors errors = make_errors_for(objective().info, 3, seed);
    errors.weights = at::tensor({1.0, 0.5, 2.0}, at::kDouble);
    for (const auto input : {&GroupErrors::error, &GroupErrors::drift}) {
      if (!(errors.*input).defined()) continue;
      const at::Tensor grad = gradient(errors, input);
      EXPECT_TRUE(near(grad, finite_differences(errors, input), 2e-5)) << grad << finite_differences(errors, input);
      EXPECT_GT(grad.abs().max().item<double>(), 0);
    }
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
  for (const double value : {0.0, 1e-8, 1.0, 50.0, 1e4}) {
    GroupErrors errors = make_errors_for(objective().info, 2);
    errors.error = at::full_like(errors.error, value, at::kFloat).requires_grad_();
    errors.error_ref = errors.error_ref.to(at::kFloat);
    errors.labels = errors.labels.to(at::kFloat);
    if (errors.drift.defined()) errors.drift = at::full_like(errors.error, value).requires_grad_();
    const LossOutput output = objective().compute(errors, params());
    output.loss.backward();
    EXPECT_EQ(output.loss.scalar_type(), at::kFloat);
    EXPECT_TRUE(output.loss.isfinite().item<bool>()) << value;
    EXPECT_TRUE(errors.error.grad().isfinite().all().item<bool>()) << value;
  }
}

TEST_P(AllObjectives, IsFiniteAtLogitsOfTenThousand) {
  const double gap = 1e4 / (objective().info.has_kappa() ? params().kappa : 1000);
  for (const double sign : {1.0, -1.0}) {
    GroupErrors errors = make_errors_for(objective().info, 4);
    const int64_t k = errors.error.size(1);
    const at::Tensor position = at::arange(k, at::kFloat).unsqueeze(0) + at::arange(4, at::kFloat).unsqueeze(1);
    errors.error_ref = at::full_like(errors.error, gap, at::kFloat);
    errors.error = errors.error_ref + sign * gap * (1 - 2 * position.remainder(2));  // 0 or twice the reference's
    errors.labels = errors.labels.to(at::kFloat);
    errors.error.requires_grad_();
    const LossOutput output = objective().compute(errors, params());
    output.loss.backward();
    EXPECT_TRUE(output.loss.isfinite().item<bool>()) << output.group_loss;
    EXPECT_TRUE(errors.error.grad().square().sum().isfinite().item<bool>()) << errors.error.grad();
  }
}

TEST_P(AllObjectives, IsFiniteWhenAllIsTied) {
  GroupErrors errors = make_errors_for(objective().info, 4);
  errors.error = errors.error_ref = at::full_like(errors.error, 0.1, at::kFloat);
  errors.labels = at::ones_like(errors.error);
  errors.error.requires_grad_();
  const LossOutput output = objective().compute(errors, params());
  EXPECT_TRUE(output.loss.isfinite().item<bool>());
  output.loss.backward();
  EXPECT_TRUE(errors.error.grad().isfinite().all().item<bool>());
}

TEST_P(AllObjectives, TakesListsOfAnyLength) {
  if (objective().info.data != DataKind::kList) GTEST_SKIP() << "no lists";
  for (const int64_t k : {2, 3, 8}) {
    const GroupErrors errors = tests::make_errors(2, k);
    EXPECT_TRUE(loss(errors) > 0 || name() == "dgpo") << k;
    const at::Tensor grad = gradient(errors, &GroupErrors::error);
    if (!has_stop_gradient(name())) {
      EXPECT_TRUE(near(grad, finite_differences(errors, &GroupErrors::error), 2e-5)) << k;
    }
    GroupErrors tied = errors;
    tied.labels = at::full_like(errors.labels, 0.5);
    EXPECT_TRUE(gradient(tied, &GroupErrors::error).isfinite().all().item<bool>()) << k;
  }
}

TEST_P(AllObjectives, PermutingTheGroupsPermutesTheirLosses) {
  const GroupErrors errors = make_errors_for(objective().info, 4);
  const std::vector<int64_t> positions = {2, 0, 3, 1};
  const at::Tensor moved = objective().compute(groups_at(errors, positions), params()).group_loss;
  const at::Tensor expected = objective().compute(errors, params()).group_loss;
  EXPECT_TRUE(near(moved, expected.index_select(0, at::tensor(positions, at::kLong)), 1e-10));
}

TEST_P(AllObjectives, GroupsDoNotSeeEachOther) {
  if (objective().info.compares_groups) GTEST_SKIP() << "compares the groups of a batch";
  const GroupErrors errors = make_errors_for(objective().info, 3);
  const at::Tensor together = objective().compute(errors, params()).group_loss;
  for (int64_t group = 0; group < 3; ++group) {
    EXPECT_TRUE(near(objective().compute(groups_at(errors, {group}), params()).loss, together[group], 1e-12));
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

std::vector<Variant> all() {
  std::vector<Variant> variants;
  for (const Objective& objective : objectives()) {
    variants.push_back({&objective, ""});
    for (const auto& parameter : objective.info.parameters) {
      for (size_t i = 1; i < parameter.choices.size(); ++i) {
        variants.push_back({&objective, parameter.name + "=" + parameter.choices[i]});
      }
    }
  }
  return variants;
}

std::string test_name(const testing::TestParamInfo<Variant>& info) {
  std::string name = info.param.objective->info.name;
  if (!info.param.args.empty()) name += "_" + info.param.args;
  std::ranges::replace_if(
      name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Registry, AllObjectives, testing::ValuesIn(all()), test_name);

}  // namespace
}  // namespace prefusion::losses
