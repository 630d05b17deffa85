// dspo, sdpo, smpo, rpo-cross, and the rows that are diffusion-dpo on errors made in another way.
#include <gtest/gtest.h>

#include "core/error.h"
#include "losses/group_math.h"
#include "losses/safe_loser.h"
#include "tests/losses/make_errors.h"
#include "tests/losses/make_predictions.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

LossOutput compute_at_kappa(const std::string& name, const GroupErrors& errors, double kappa,
                            const std::string& args = "") {
  const Objective& objective = find_objective(name);
  return objective.compute(errors, resolve_params(objective.info, args, {}, kappa));
}

// d loss / d prediction of the policy, [B, 2, C, H, W].
at::Tensor prediction_gradient(const Predictions& predictions, const at::Tensor& loss) {
  predictions.policy.mutable_grad() = at::Tensor();
  loss.backward();
  return predictions.policy.grad().clone();
}

TEST(Dspo, IsTheSquaredResidualOfThePaper) {
  const Predictions p = make_predictions(4, 2);
  for (const double beta : {0.001, 0.5, 8.0}) {
    const GroupErrors errors = errors_of(p);
    const LossOutput found = compute_at_kappa("dspo", errors, beta / 2);
    const at::Tensor found_gradient = prediction_gradient(p, found.loss);

    const GroupErrors again = errors_of(p);
    const at::Tensor gap = again.error.select(1, 0) - again.error.select(1, 1);
    const at::Tensor gap_ref = again.error_ref.select(1, 0) - again.error_ref.select(1, 1);
    const at::Tensor q = beta * (1 - at::sigmoid(-0.5 * beta * (gap - gap_ref)));
    const at::Tensor residual =
        (p.policy - p.target).select(1, 0) - q.view({-1, 1, 1, 1}) * (p.policy - p.reference).select(1, 0);
    const at::Tensor expected = residual.square().flatten(1).mean(1);
    EXPECT_TRUE(near(found.group_loss, expected, 1e-12)) << beta;
    EXPECT_TRUE(near(found_gradient, prediction_gradient(p, expected.mean()), 1e-10)) << beta;
  }
}

TEST(Dspo, IsTheDenoisingLossForSmallBeta) {
  const GroupErrors errors = errors_of(make_predictions(3, 2));
  EXPECT_NEAR(compute_at_kappa("dspo", errors, 1e-12).loss.item<double>(), loss_of("sft", errors), 1e-10);
}

// The factor as the public code has it, from gradients of the batch's mean squared errors.
double public_safe_factor(const Predictions& p, double mu) {
  const at::Tensor residual = (p.policy - p.target).detach();
  const at::Tensor chosen = 2 * residual.select(1, 0) / residual.select(1, 0).numel();
  const at::Tensor rejected = 2 * residual.select(1, 1) / residual.select(1, 1).numel();
  const double product = (chosen * rejected).sum().item<double>();
  if (product <= 0) return 1;
  return std::min(1.0, (1 - mu) * chosen.square().sum().item<double>() / product);
}

// Predictions whose two residuals point the same way, as they do under shared noise.
Predictions parallel_predictions() {
  Predictions p = make_predictions(3, 2);
  const at::Tensor common = (p.policy - p.target).detach().select(1, 0).unsqueeze(1);
  p.policy = (0.2 * p.policy.detach() + 0.8 * (p.target + 1.5 * common)).requires_grad_();
  return p;
}

TEST(Sdpo, ScalesOnlyTheRejectedGradientOfDpo) {
  const Predictions p = parallel_predictions();
  const at::Tensor dpo = prediction_gradient(p, compute_at_kappa("diffusion-dpo", errors_of(p), 30).loss);
  for (const double mu : {0.2, 0.6, 0.9}) {
    const LossOutput found = compute_at_kappa("sdpo", errors_of(p), 30, concat("mu=", mu));
    EXPECT_NEAR(found.loss.item<double>(), compute_at_kappa("diffusion-dpo", errors_of(p), 30).loss.item<double>(),
                1e-12);
    const at::Tensor gradient = prediction_gradient(p, found.loss);
    const double factor = public_safe_factor(p, mu);
    EXPECT_LT(factor, 1);
    EXPECT_TRUE(near(gradient.select(1, 0), dpo.select(1, 0), 1e-12));
    EXPECT_TRUE(near(gradient.select(1, 1), factor * dpo.select(1, 1), 1e-9)) << mu;
  }
}

TEST(Sdpo, KeepsTheShareMuOfTheChosenItemsImprovement) {
  // One pair whose two predictions are the same parameters: a step along the loss changes both.
  Predictions p = parallel_predictions();
  p = {p.policy.detach().slice(0, 0, 1).select(1, 0).unsqueeze(1).clone().requires_grad_(), p.reference.slice(0, 0, 1),
       p.target.slice(0, 0, 1)};
  const auto shared = [&p] { return Predictions{p.policy.expand({1, 2, 3, 4, 4}), p.reference, p.target}; };
  const at::Tensor chosen = prediction_gradient(p, errors_of(shared()).error.select(1, 0).sum());
  const auto improvement_of_chosen = [&](const char* name, const char* args) {
    const at::Tensor step = prediction_gradient(p, compute_at_kappa(name, errors_of(shared()), 30, args).loss);
    const double slope = 30 / (1 + std::exp(30 * pair_improvement(errors_of(shared())).item<double>()));
    return (step * chosen).sum().item<double>() / (slope * chosen.square().sum().item<double>());
  };
  if (errors_of(shared()).residual_dot.item<double>() <= 0) GTEST_FAIL() << "residuals should be parallel";
  EXPECT_NEAR(improvement_of_chosen("sdpo", "mu=0.9"), 0.9, 1e-9);
  EXPECT_LT(improvement_of_chosen("diffusion-dpo", ""), 0.9);
}

TEST(SafeLoserFactor, StaysBetweenZeroAndOne) {
  const auto factor = [](double square, double product, double mu) {
    return safe_loser_factor(at::full({2}, square, at::kDouble), at::full({2}, product, at::kDouble), mu)
        .item<double>();
  };
  EXPECT_NEAR(factor(0.1, 0.2, 0.4), 0.3, 1e-12);
  EXPECT_EQ(factor(0.1, 0.2, 1), 0);
  EXPECT_EQ(factor(0.1, 0.01, 0.5), 1);
  EXPECT_EQ(factor(0.1, -0.2, 0.9), 1);
  EXPECT_EQ(factor(0, 0, 0.9), 1);
  EXPECT_EQ(factor(1e4, 1e-30, 0.9), 1);
}

GroupErrors with_scores(GroupErrors errors, double first, double second) {
  errors.scores = at::tensor({first, second}, at::kDouble).expand_as(errors.error);
  errors.latent_source = LatentSource::kRenoiseInversion;
  return errors;
}

TEST(Smpo, SmoothsTheLabelByTheSoftmaxOfTheScores) {
  const GroupErrors errors = make_errors(4, 2);
  for (const auto& [first, second] : std::vector<std::pair<double, double>>{{0.23, 0.21}, {0.18, 0.22}, {0.2, 0.2}}) {
    const auto rescaled = [](double score) {
      return std::exp((score - 0.11543526500463486) / (0.28201571106910706 - 0.11543526500463486));
    };
    const int winner = first >= second ? 0 : 1;
    const double p = rescaled(std::max(first, second)) / (rescaled(first) + rescaled(second));
    const at::Tensor found = compute_at_kappa("smpo", with_scores(errors, first, second), 2500).group_loss;
    for (int64_t i = 0; i < 4; ++i) {
      const auto at = [&](const at::Tensor& x, int64_t j) { return x[i][j].item<double>(); };
      const double inside = at(errors.error, winner) - at(errors.error, 1 - winner) -
                            (at(errors.error_ref, winner) - at(errors.error_ref, 1 - winner));
      EXPECT_NEAR(found[i].item<double>(), -log_sigmoid(-2500 * 10 * (2 * p - 1) * inside), 1e-9);
    }
  }
}

TEST(Smpo, IsDpoAtAProbabilityOfElevenTwentieths) {
  const GroupErrors errors = make_errors(4, 2);
  const double range = 0.28201571106910706 - 0.11543526500463486;
  const GroupErrors scored = with_scores(errors, 0.2 + range * std::log(0.55 / 0.45), 0.2);
  EXPECT_NEAR(loss_of("smpo", scored), loss_of("diffusion-dpo", errors), 1e-9);
}

GroupErrors with_distances(GroupErrors errors, const at::Tensor& distance) {
  errors.prompt_distance = distance.to(at::kDouble);
  return errors;
}

TEST(RpoCross, WeighsAllPairsOfChosenAndRejectedByPromptDistance) {
  const GroupErrors errors = make_errors_for(find_objective("rpo-cross").info, 4);
  const at::Tensor found = compute_at_kappa("rpo-cross", errors, 2500, "tau=0.25").group_loss;
  const auto s = [&](int64_t i, int64_t j) {
    return errors.error_ref[i][j].item<double>() - errors.error[i][j].item<double>();
  };
  for (int64_t i = 0; i < 4; ++i) {
    double loss = 0, total = 0;
    for (int64_t j = 0; j < 4; ++j) {
      const double weight = std::exp(-errors.prompt_distance[i][j].item<double>() / 0.25);
      total += weight;
      loss -= weight * log_sigmoid(2500 * (s(i, 0) - s(j, 1)));
    }
    EXPECT_NEAR(found[i].item<double>(), loss / total, 1e-9);
  }
}

TEST(RpoCross, IsDpoForOnePairAndForPromptsFarApart) {
  const GroupErrors one = with_distances(make_errors(1, 2), at::zeros({1, 1}));
  EXPECT_NEAR(loss_of("rpo-cross", one), loss_of("diffusion-dpo", one), 1e-12);
  const GroupErrors apart = with_distances(make_errors(3, 2), 1000 * (1 - at::eye(3)));
  EXPECT_NEAR(loss_of("rpo-cross", apart), loss_of("diffusion-dpo", apart), 1e-12);
  const GroupErrors same = with_distances(make_errors(3, 2), at::zeros({3, 3}));
  EXPECT_GT(std::abs(loss_of("rpo-cross", same) - loss_of("diffusion-dpo", same)), 1e-3);
}

TEST(ConditionalRows, OfDpoDifferOnlyInHowErrorsAreMade) {
  for (const char* name : {"ddim-inpo", "dcpo", "tdpo", "masked", "spin"}) {
    const GroupErrors errors = make_errors_for(find_objective(name).info, 3);
    EXPECT_NEAR(compute_at_kappa(name, errors, 100).loss.item<double>(),
                compute_at_kappa("diffusion-dpo", errors, 100).loss.item<double>(), 1e-15)
        << name;
  }
  EXPECT_EQ(default_params("dcpo").kappa, 250);
  EXPECT_EQ(default_params("dspo").kappa, 0.0005);
}

}  // namespace
}  // namespace prefusion::losses
