#include "losses/loss_options.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/losses/compute_with_options.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

GroupErrors with_labels(GroupErrors errors, double p) {
  errors.labels = at::tensor({p, 1 - p}, at::kDouble).expand_as(errors.error);
  return errors;
}

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

TEST(SafeLoser, TakesTheSquaresOfMaskedResidualsForTheErrors) {
  GroupErrors errors = complete_errors(find_objective("masked").info, 4);
  const at::Tensor plain = gradient_of("masked", errors);
  errors.residual_square = at::stack({0.3 * errors.error.select(1, 0), 7 * errors.error.select(1, 1)}, 1);
  const double factor =
      0.5 * errors.residual_square.select(1, 0).sum().item<double>() / errors.residual_dot.sum().item<double>();
  const at::Tensor safe = gradient_with({.safe_loser = 0.5}, "masked", errors);
  EXPECT_TRUE(near(safe.select(1, 0), plain.select(1, 0), 1e-12));
  EXPECT_TRUE(near(safe.select(1, 1), factor * plain.select(1, 1), 1e-9));
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

TEST(Swap, MakesTheRejectedItemTheChosenOneOfTheSftTerm) {
  GroupErrors errors = make_errors(2, 2);
  const double exchanged = loss_of("diffusion-dpo", swapped(errors));
  errors.swap = at::ones({2}, at::kBool);
  EXPECT_NEAR(loss_with({.sft_weight = 3}, "diffusion-dpo", errors),
              exchanged + 3 * errors.error.select(1, 1).mean().item<double>(), 1e-12);
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
