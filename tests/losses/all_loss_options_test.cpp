// What every option must satisfy on every objective that can bear it.
#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"
#include "losses/loss_options.h"
#include "tests/losses/compute_with_options.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// Options that one objective or another can bear, each by itself and all compatible ones together.
const std::vector<LossOptions>& variants() {
  static const std::vector<LossOptions> kVariants = {
      {.loser_weight = 0.5},
      {.safe_loser = 0.5},
      {.sft_weight = 0.1},
      {.anchor_weight = 0.1},
      {.label_smoothing = 0.1},
      {.soft_labels = true},
      {.margin_drop = 0.5},
      {.swap_empty_prompts = true},
      {.loser_weight = 0.5, .sft_weight = 0.1, .anchor_weight = 0.1, .label_smoothing = 0.1, .margin_drop = 0.5},
      {.safe_loser = 0.5, .sft_weight = 0.1, .label_smoothing = 0.1, .soft_labels = true, .swap_empty_prompts = true},
  };
  return kVariants;
}

bool bears(const Objective& objective, const LossOptions& options) {
  try {
    check_loss_options(objective, options);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Calls `check` for every objective with every option it can bear, with what the options need in place.
void for_each_variant(const std::function<void(const Objective&, const LossOptions&, GroupErrors)>& check) {
  for (const Objective& objective : objectives()) {
    for (const LossOptions& options : variants()) {
      if (!bears(objective, options)) continue;
      GroupErrors errors = complete_errors(objective.info, 4);
      errors.drop_margin = at::tensor({0, 1, 0, 0}, at::kLong).to(at::kBool);
      if (options.swap_empty_prompts) errors.swap = at::tensor({1, 0, 0, 1}, at::kLong).to(at::kBool);
      errors.error_scale = at::tensor({1.0, 2.0, 0.5, 0.1}, at::kDouble);
      check(objective, options, errors);
    }
  }
}

TEST(LossOptions, StayFiniteInFp32AtExtremeErrorsWhateverTheObjective) {
  for_each_variant([](const Objective& objective, const LossOptions& options, GroupErrors errors) {
    for (const double value : {0.0, 1e-8, 50.0, 1e4}) {
      for (at::Tensor* tensor : {&errors.error, &errors.drift}) {
        *tensor = at::full(errors.labels.sizes(), value, at::kFloat).requires_grad_();
      }
      errors.error_ref = errors.error_ref.to(at::kFloat);
      errors.error_scale = errors.error_scale.to(at::kFloat);
      const LossOutput output = objective.compute(errors, resolve_params(objective.info, "", {}, {}), options);
      output.loss.backward();
      EXPECT_EQ(output.loss.scalar_type(), at::kFloat) << objective.info.name;
      EXPECT_TRUE(output.loss.isfinite().item<bool>()) << objective.info.name << " at " << value;
      EXPECT_TRUE(errors.error.grad().isfinite().all().item<bool>()) << objective.info.name << " at " << value;
    }
  });
}

TEST(LossOptions, LeaveTheMetricsAlone) {
  for_each_variant([](const Objective& objective, const LossOptions& options, const GroupErrors& errors) {
    const ObjectiveParams params = resolve_params(objective.info, "", {}, {});
    const auto found = objective.compute(errors, params, options).metrics;
    GroupErrors plain = errors;
    plain.drop_margin = plain.swap = plain.error_scale = at::Tensor();
    for (const auto& [name, value] : objective.compute(plain, params).metrics) {
      EXPECT_TRUE(at::equal(found.at(name), value)) << objective.info.name << " " << name;
    }
  });
}

TEST(LossOptions, GradientsEqualFiniteDifferences) {
  for (const char* name : {"diffusion-dpo", "mapo", "dspo", "rankdpo", "bco-unpaired"}) {
    const Objective& objective = find_objective(name);
    for (const LossOptions& options : variants()) {
      if (options.safe_loser || !bears(objective, options)) continue;  // a gradient that is not the loss's
      GroupErrors errors = complete_errors(objective.info, 2);
      if (options.soft_labels) errors.labels = at::tensor({0.7, 0.3}, at::kDouble).expand_as(errors.error);
      errors.error_scale = at::tensor({2.0, 0.5}, at::kDouble);
      const at::Tensor gradient = gradient_with(options, name, errors);
      for (int64_t j = 0; j < gradient.numel(); ++j) {
        const auto loss = [&](double step) {
          GroupErrors moved = errors;
          moved.error = errors.error.clone();
          moved.error.view({-1})[j] += step;
          return loss_with(options, name, moved);
        };
        const double expected = (loss(1e-7) - loss(-1e-7)) / 2e-7;
        EXPECT_NEAR(gradient.view({-1})[j].item<double>(), expected, 2e-5 * gradient.abs().max().item<double>())
            << name;
      }
    }
  }
}

TEST(LossOptions, OfGroupsThatDoNotSeeEachOtherAreMeansOfTheSingleGroups) {
  for_each_variant([](const Objective& objective, const LossOptions& options, const GroupErrors& errors) {
    if (objective.info.compares_groups) return;
    const ObjectiveParams params = resolve_params(objective.info, "", {}, {});
    const at::Tensor together = objective.compute(errors, params, options).group_loss;
    for (int64_t group = 0; group < 4; ++group) {
      EXPECT_TRUE(near(objective.compute(groups_at(errors, {group}), params, options).loss, together[group], 1e-12))
          << objective.info.name;
    }
  });
}

}  // namespace
}  // namespace prefusion::losses
