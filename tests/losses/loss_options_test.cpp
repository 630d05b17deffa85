#include "losses/loss_options.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"
#include "tests/losses/make_errors.h"
#include "tests/losses/make_predictions.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

LossOutput compute_with(const LossOptions& options, const std::string& name, const GroupErrors& errors,
                        const std::string& args = "") {
  const Objective& objective = find_objective(name);
  return objective.compute(errors, resolve_params(objective.info, args, {}, {}), options);
}

double loss_with(const LossOptions& options, const std::string& name, const GroupErrors& errors,
                 const std::string& args = "") {
  return compute_with(options, name, errors, args).loss.item<double>();
}

at::Tensor gradient_with(const LossOptions& options, const std::string& name, GroupErrors errors) {
  errors.error = errors.error.detach().clone().requires_grad_();
  compute_with(options, name, errors).loss.backward();
  return errors.error.grad();
}

GroupErrors with_labels(GroupErrors errors, double p) {
  errors.labels = at::tensor({p, 1 - p}, at::kDouble).expand_as(errors.error);
  return errors;
}

// Everything an option may need, for any objective.
GroupErrors complete_errors(const ObjectiveInfo& info, int64_t num_groups) {
  ObjectiveInfo all = info;
  all.needs_drift = all.needs_residual_dot = true;
  return make_errors_for(all, num_groups);
}

// --- each option by its formula

TEST(LabelSmoothing, OfDpoIsDpoSmooth) {
  const GroupErrors errors = make_errors(5, 2);
  EXPECT_NEAR(loss_with({.label_smoothing = 0.2}, "diffusion-dpo", errors),
              loss_of("dpo-smooth", errors, "label_smoothing=0.2"), 1e-12);
  EXPECT_TRUE(near(gradient_with({.label_smoothing = 0.2}, "diffusion-dpo", errors),
                   gradient_of("dpo-smooth", errors, "label_smoothing=0.2"), 1e-12));
}

TEST(LabelSmoothing, MixesThePairWithItsExchange) {
  for (const char* name : {"dpo-hinge", "dpo-ipo", "linear", "simpo", "mapo", "cpo", "nca"}) {
    const GroupErrors errors = make_errors(5, 2);
    EXPECT_NEAR(loss_with({.label_smoothing = 0.3}, name, errors),
                0.7 * loss_of(name, errors) + 0.3 * loss_of(name, swapped(errors)), 1e-12)
        << name;
  }
}

TEST(LabelSmoothing, LeavesTheScoresAtTheirPlaces) {
  // odpo: the exchanged pair has the opposite margin, so both terms are logistic in u - alpha * gap.
  GroupErrors errors = make_errors(1, 2);
  errors.scores = at::tensor({2.0, 1.5}, at::kDouble).view({1, 2});
  const double u =
      2500 *
      ((errors.error_ref - errors.error).select(1, 0) - (errors.error_ref - errors.error).select(1, 1)).item<double>();
  EXPECT_NEAR(loss_with({.label_smoothing = 0.1}, "odpo", errors),
              -0.9 * log_sigmoid(u - 0.5) - 0.1 * log_sigmoid(-u - 0.5), 1e-9);
}

TEST(SoftLabels, OfProbabilityOneChangeNothing) {
  for (const char* name : {"diffusion-dpo", "simpo", "dpo-smooth", "odpo"}) {
    const GroupErrors errors = with_labels(make_errors(5, 2), 1);
    EXPECT_NEAR(loss_with({.soft_labels = true}, name, errors), loss_of(name, errors), 1e-12) << name;
  }
}

TEST(SoftLabels, MixThePairWithItsExchangeGroupByGroup) {
  GroupErrors errors = make_errors(3, 2);
  const at::Tensor p = at::tensor({0.9, 0.5, 0.2}, at::kDouble);
  errors.labels = at::stack({p, 1 - p}, 1);
  const at::Tensor plain = compute("dpo-hinge", errors).group_loss;
  const at::Tensor other = compute("dpo-hinge", swapped(errors)).group_loss;
  EXPECT_TRUE(
      near(compute_with({.soft_labels = true}, "dpo-hinge", errors).group_loss, p * plain + (1 - p) * other, 1e-12));
  // Both at once: the probability p is itself wrong with probability eps.
  const at::Tensor mixed = 0.8 * p + 0.2 * (1 - p);
  EXPECT_TRUE(near(compute_with({.label_smoothing = 0.2, .soft_labels = true}, "dpo-hinge", errors).group_loss,
                   mixed * plain + (1 - mixed) * other, 1e-12));
}

TEST(LoserWeight, ScalesTheImprovementOfTheRejectedItem) {
  const GroupErrors errors = make_errors(4, 2);
  GroupErrors lighter = errors;
  lighter.error = errors.error.clone();
  lighter.error.select(1, 1).copy_((errors.error_ref + 0.3 * (errors.error - errors.error_ref)).select(1, 1));
  for (const char* name : {"diffusion-dpo", "sppo", "dpo-ipo"}) {
    EXPECT_NEAR(loss_with({.loser_weight = 0.3}, name, errors), loss_of(name, lighter), 1e-12) << name;
  }
  lighter.error.select(1, 1).copy_(0.3 * errors.error.select(1, 1));
  for (const char* name : {"simpo", "mapo"}) {
    EXPECT_NEAR(loss_with({.loser_weight = 0.3}, name, errors), loss_of(name, lighter), 1e-12) << name;
  }
  EXPECT_EQ(gradient_with({.loser_weight = 0}, "diffusion-dpo", errors).select(1, 1).abs().max().item<double>(), 0);
}

TEST(LoserWeight, OfAListSparesTheBestItemByItsLabel) {
  GroupErrors errors = make_errors(3, 4);
  errors.labels = at::tensor({0.2, 0.5, 1.0, 0.0}, at::kDouble).repeat({3, 1});
  GroupErrors lighter = errors;
  lighter.error = errors.error_ref + 0.5 * (errors.error - errors.error_ref);
  lighter.error.select(1, 2).copy_(errors.error.select(1, 2));
  for (const char* name : {"rankdpo", "plackett-luce", "dgpo"}) {
    EXPECT_NEAR(loss_with({.loser_weight = 0.5}, name, errors), loss_of(name, lighter), 1e-12) << name;
  }
}

TEST(LoserWeight, OfSmpoFollowsTheScores) {
  GroupErrors errors = make_errors_for(find_objective("smpo").info, 1);
  errors.scores = at::tensor({0.2, 0.23}, at::kDouble).view({1, 2});
  const at::Tensor gradient = gradient_with({.loser_weight = 0}, "smpo", errors);
  EXPECT_EQ(gradient[0][0].item<double>(), 0);
  EXPECT_GT(gradient[0][1].item<double>(), 0);
}

TEST(SafeLoser, OverDpoIsSdpo) {
  const GroupErrors errors = complete_errors(find_objective("diffusion-dpo").info, 4);
  EXPECT_NEAR(loss_with({.safe_loser = 0.4}, "diffusion-dpo", errors), loss_of("sdpo", errors), 1e-12);
  EXPECT_TRUE(
      near(gradient_with({.safe_loser = 0.4}, "diffusion-dpo", errors), gradient_of("sdpo", errors, "mu=0.4"), 1e-12));
}

TEST(SafeLoser, ScalesTheRejectedGradientOfAnyPairObjective) {
  for (const char* name : {"mapo", "dspo", "exo", "linear"}) {
    const GroupErrors errors = complete_errors(find_objective(name).info, 4);
    const double factor =
        0.5 * errors.error.select(1, 0).sum().item<double>() / errors.residual_dot.sum().item<double>();
    const at::Tensor plain = gradient_of(name, errors);
    const at::Tensor safe = gradient_with({.safe_loser = 0.5}, name, errors);
    EXPECT_NEAR(loss_with({.safe_loser = 0.5}, name, errors), loss_of(name, errors), 1e-12) << name;
    EXPECT_TRUE(near(safe.select(1, 0), plain.select(1, 0), 1e-12)) << name;
    EXPECT_TRUE(near(safe.select(1, 1), factor * plain.select(1, 1), 1e-9)) << name;
  }
}

TEST(SftWeight, AddsTheErrorOfTheChosenItem) {
  const GroupErrors pair = make_errors(3, 2);
  EXPECT_NEAR(loss_with({.sft_weight = 2}, "diffusion-dpo", pair),
              loss_of("diffusion-dpo", pair) + 2 * loss_of("sft", pair), 1e-12);
  GroupErrors list = make_errors(3, 4);
  list.labels = at::tensor({0.2, 0.5, 1.0, 0.0}, at::kDouble).repeat({3, 1});
  EXPECT_NEAR(loss_with({.sft_weight = 2}, "rankdpo", list),
              loss_of("rankdpo", list) + 2 * list.error.select(1, 2).mean().item<double>(), 1e-12);
  const GroupErrors items = make_errors(4, 1);  // labels 0, 1, 0, 1
  EXPECT_NEAR(loss_with({.sft_weight = 2}, "kto", items),
              loss_of("kto", items) + 2 * (items.error * items.labels).mean().item<double>(), 1e-12);
}

TEST(AnchorWeight, AddsTheMeanDriftAndItsGradient) {
  for (const char* name : {"diffusion-dpo", "mapo", "rankdpo", "kto", "sft"}) {
    GroupErrors errors = complete_errors(find_objective(name).info, 3);
    errors.drift.requires_grad_();
    const LossOutput found = compute_with({.anchor_weight = 4}, name, errors);
    EXPECT_NEAR(found.loss.item<double>(), loss_of(name, errors) + 4 * errors.drift.mean().item<double>(), 1e-12)
        << name;
    found.loss.backward();
    EXPECT_TRUE(near(errors.drift.grad(), at::full_like(errors.drift, 4.0 / errors.drift.numel()), 1e-12)) << name;
  }
}

TEST(DropMargin, LeavesOnlyTheOtherTerms) {
  GroupErrors errors = complete_errors(find_objective("diffusion-dpo").info, 3);
  const at::Tensor plain = compute("diffusion-dpo", errors).group_loss;
  errors.drop_margin = at::tensor({1, 0, 1}, at::kLong).to(at::kBool);
  const at::Tensor kept = at::tensor({0.0, 1.0, 0.0}, at::kDouble);
  EXPECT_TRUE(near(compute("diffusion-dpo", errors).group_loss, plain * kept, 1e-12));
  EXPECT_TRUE(near(compute_with({.sft_weight = 1, .anchor_weight = 2}, "diffusion-dpo", errors).group_loss,
                   plain * kept + errors.error.select(1, 0) + 2 * errors.drift.mean(1), 1e-12));
  EXPECT_EQ(gradient_of("diffusion-dpo", errors)[0].abs().max().item<double>(), 0);
}

TEST(Swap, ExchangesTheRolesOfMarkedPairs) {
  for (const char* name : {"diffusion-dpo", "snpo", "simpo", "odpo", "dspo"}) {
    GroupErrors errors = complete_errors(find_objective(name).info, 3);
    GroupErrors other = swapped(errors);
    other.drift = errors.drift.flip(1);
    const at::Tensor plain = compute(name, errors).group_loss;
    const at::Tensor exchanged = compute(name, other).group_loss;
    errors.swap = at::tensor({0, 1, 0}, at::kLong).to(at::kBool);
    const at::Tensor expected = at::where(errors.swap, exchanged, plain);
    EXPECT_TRUE(near(compute_with({.swap_empty_prompts = true}, name, errors).group_loss, expected, 1e-12)) << name;
  }
}

TEST(ErrorScale, ActsInsideTheLinkAndWeightsOutside) {
  for (const char* name : {"diffusion-dpo", "dspo", "sdpo", "mapo", "kto", "rankdpo"}) {
    const GroupErrors errors = complete_errors(find_objective(name).info, 2);
    GroupErrors by_hand = errors;
    const at::Tensor factor = at::tensor({0.25, 3.0}, at::kDouble);
    for (at::Tensor* tensor : {&by_hand.error, &by_hand.error_ref, &by_hand.drift}) {
      *tensor = *tensor * factor.unsqueeze(1);
    }
    by_hand.residual_dot = errors.residual_dot * factor;
    GroupErrors scaled = errors;
    scaled.error_scale = factor;
    EXPECT_TRUE(near(compute(name, scaled).group_loss, compute(name, by_hand).group_loss, 1e-12)) << name;
    EXPECT_TRUE(near(gradient_of(name, scaled), gradient_of(name, by_hand) * factor.unsqueeze(1), 1e-12)) << name;
    scaled.weights = at::tensor({2.0, 0.5}, at::kDouble);
    EXPECT_TRUE(near(compute(name, scaled).group_loss, compute(name, by_hand).group_loss * scaled.weights, 1e-12));
  }
}

TEST(ErrorScale, OfDpoIsAKappaOfItsOwn) {
  GroupErrors errors = make_errors(1, 2);
  const Objective& dpo = find_objective("diffusion-dpo");
  const double expected = dpo.compute(errors, resolve_params(dpo.info, "", {}, 2500 * 0.3)).loss.item<double>();
  errors.error_scale = at::full({1}, 0.3, at::kDouble);
  EXPECT_NEAR(loss_of("diffusion-dpo", errors), expected, 1e-12);
}

// --- all options on all objectives

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
      if (options.soft_labels) errors = with_labels(errors, 0.7);
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

// --- what is refused

std::string refusal(const char* name, const LossOptions& options) {
  try {
    check_loss_options(find_objective(name), options);
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kUsage);
    return error.what();
  }
  return "";
}

bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(LossOptions, RefuseByNameWhatAnObjectiveCannotBear) {
  EXPECT_TRUE(mentions(refusal("kto", {.loser_weight = 0.5}), "--loser-weight: objective kto trains on unpaired"));
  EXPECT_TRUE(mentions(refusal("sft", {.loser_weight = 0.5}), "--loser-weight"));
  EXPECT_TRUE(mentions(refusal("rankdpo", {.safe_loser = 0.5}), "--safe-loser: objective rankdpo trains on list"));
  EXPECT_TRUE(mentions(refusal("sdpo", {.safe_loser = 0.5}), "--safe-loser: objective sdpo scales"));
  EXPECT_TRUE(mentions(refusal("sdpo", {.loser_weight = 0.5}), "--loser-weight: objective sdpo scales"));
  EXPECT_TRUE(mentions(refusal("diffusion-dpo", {.loser_weight = 0.5, .safe_loser = 0.5}), "give one"));
  EXPECT_TRUE(mentions(refusal("sft", {.sft_weight = 1}), "--sft-weight"));
  EXPECT_TRUE(mentions(refusal("rankdpo", {.label_smoothing = 0.1}), "--label-smoothing"));
  EXPECT_TRUE(mentions(refusal("dpo-smooth", {.label_smoothing = 0.1}), "--objective-args label_smoothing=0.1"));
  EXPECT_TRUE(mentions(refusal("kto", {.soft_labels = true}), "--soft-labels"));
  EXPECT_TRUE(mentions(refusal("aot", {.soft_labels = true}), "--soft-labels"));
  EXPECT_TRUE(mentions(refusal("smpo", {.soft_labels = true}), "scores"));
  EXPECT_TRUE(mentions(refusal("sft", {.margin_drop = 0.5}), "--margin-drop"));
  EXPECT_TRUE(mentions(refusal("plackett-luce", {.swap_empty_prompts = true}), "--swap-empty-prompts"));
  EXPECT_EQ(refusal("diffusion-dpo", {.safe_loser = 0.5,
                                      .sft_weight = 1,
                                      .anchor_weight = 1,
                                      .label_smoothing = 0.1,
                                      .soft_labels = true,
                                      .margin_drop = 0.1,
                                      .swap_empty_prompts = true}),
            "");
}

TEST(LossOptions, RefuseValuesOutOfRange) {
  const double nan = std::nan("");
  for (const LossOptions& options : std::vector<LossOptions>{{.loser_weight = -0.1},
                                                             {.loser_weight = 1.1},
                                                             {.loser_weight = nan},
                                                             {.safe_loser = 1.5},
                                                             {.sft_weight = -1},
                                                             {.sft_weight = nan},
                                                             {.anchor_weight = -1},
                                                             {.label_smoothing = 0.6},
                                                             {.margin_drop = 2}}) {
    EXPECT_TRUE(mentions(refusal("diffusion-dpo", options), "expected 0 to"));
  }
}

TEST(LossOptions, SayWhatTheyNeedBesides) {
  const ObjectiveInfo& mapo = find_objective("mapo").info;
  EXPECT_TRUE(with_needs_of({.anchor_weight = 1}, mapo).needs_reference);
  EXPECT_TRUE(with_needs_of({.anchor_weight = 1}, mapo).needs_drift);
  EXPECT_TRUE(with_needs_of({.safe_loser = 0.5}, mapo).needs_residual_dot);
  EXPECT_FALSE(with_needs_of({}, mapo).needs_reference);
  GroupErrors errors = make_errors(2, 2);
  EXPECT_THROW(loss_with({.anchor_weight = 1}, "mapo", errors), Error);
  EXPECT_THROW(loss_with({.safe_loser = 0.5}, "mapo", errors), Error);
  errors.labels = at::Tensor();
  EXPECT_THROW(loss_with({.soft_labels = true}, "mapo", errors), Error);
}

}  // namespace
}  // namespace prefusion::losses
