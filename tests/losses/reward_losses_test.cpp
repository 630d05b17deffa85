#include "losses/reward_losses.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using tests::near;

at::Tensor rows(std::vector<std::vector<double>> values) {
  std::vector<at::Tensor> parts;
  for (const auto& row : values) parts.push_back(at::tensor(row, at::kDouble));
  return at::stack(parts);
}

double softplus(double x) {
  return std::log1p(std::exp(x));
}

double at_row(const at::Tensor& values, int64_t row) {
  return values[row].item<double>();
}

TEST(RewardLosses, PickScoreIsTheCrossEntropyOfSoftLabels) {
  const at::Tensor loss =
      pickscore_loss({.scores = rows({{2, 1}, {0.5, 2}, {1, 0}}), .labels = rows({{1, 0}, {0.7, 0.3}, {0, 1}})});
  EXPECT_NEAR(at_row(loss, 0), softplus(-1), 1e-12);
  EXPECT_NEAR(at_row(loss, 1), 0.7 * softplus(1.5) + 0.3 * softplus(-1.5), 1e-12);
  EXPECT_NEAR(at_row(loss, 2), softplus(1), 1e-12);
}

TEST(RewardLosses, PerfectTieCostsPickScoreNothing) {
  const at::Tensor loss = pickscore_loss({.scores = rows({{3, 3}, {1, 0}}), .labels = rows({{0.5, 0.5}, {0.5, 0.5}})});
  EXPECT_NEAR(at_row(loss, 0), 0, 1e-12);
  EXPECT_NEAR(at_row(loss, 1), 0.5 * (softplus(1) + softplus(-1)) - std::log(2.0), 1e-12);
}

TEST(RewardLosses, PickScoreRefusesLists) {
  EXPECT_THROW(pickscore_loss({.scores = rows({{1, 2, 3}}), .labels = rows({{1, 2, 3}})}), Error);
}

TEST(RewardLosses, PairsOfAListAreComparedByTheirLabels) {
  EXPECT_TRUE(near(pair_targets(rows({{3, 1, 1}})), rows({{1, 1, 0.5}}), 0));
  EXPECT_TRUE(near(pair_targets(rows({{0.2, 0.8}, {4, 1}, {2, -1}})), rows({{0.2}, {1}, {1}}), 0));
  EXPECT_TRUE(near(score_gaps(rows({{3, 1, 0}})), rows({{2, 3, 1}}), 0));
}

TEST(RewardLosses, BradleyTerryWithoutTiesIsLogistic) {
  const at::Tensor loss = bradley_terry_loss({.scores = rows({{1, 0, 3}}), .labels = rows({{3, 2, 1}})});
  EXPECT_NEAR(at_row(loss, 0), (softplus(-1) + softplus(2) + softplus(3)) / 3, 1e-12);
}

TEST(RewardLosses, DavidsonGivesTiesTheirShare) {
  const double nu = 0.6, d = 0.8;
  const double z = std::exp(d / 2) + std::exp(-d / 2) + nu;
  const at::Tensor loss = bradley_terry_loss({.scores = rows({{d, 0}, {d, 0}, {d, 0}, {d, 0}}),
                                              .labels = rows({{1, 0}, {0, 1}, {0.5, 0.5}, {0.8, 0.2}}),
                                              .log_tie = at::scalar_tensor(std::log(nu), at::kDouble)});
  EXPECT_NEAR(at_row(loss, 0), std::log(z) - d / 2, 1e-12);
  EXPECT_NEAR(at_row(loss, 1), std::log(z) + d / 2, 1e-12);
  EXPECT_NEAR(at_row(loss, 2), std::log(z) - std::log(nu), 1e-12);
  EXPECT_NEAR(at_row(loss, 3), std::log(z) - 0.8 * d / 2 + 0.2 * d / 2, 1e-12);
}

TEST(RewardLosses, DavidsonWithoutTiesIsBradleyTerry) {
  const at::Tensor scores = rows({{0.4, 1.5}}), labels = rows({{1, 0}});
  const at::Tensor with =
      bradley_terry_loss({.scores = scores, .labels = labels, .log_tie = at::scalar_tensor(-80.0, at::kDouble)});
  EXPECT_NEAR(at_row(with, 0), at_row(bradley_terry_loss({.scores = scores, .labels = labels}), 0), 1e-12);
}

TEST(RewardLosses, HpsIsAHingeOnPreferredPairs) {
  const at::Tensor loss =
      hps_loss({.scores = rows({{2, 1.5, 3}, {1, 2, 0}}), .labels = rows({{3, 2, 2}, {1, 1, 1}})}, 1);
  EXPECT_NEAR(at_row(loss, 0), (0.5 + 2) / 2, 1e-12);
  EXPECT_EQ(at_row(loss, 1), 0);
}

TEST(RewardLosses, RankListComparesItemsUpToSomePlacesApart) {
  const RewardTargets list{.scores = rows({{1, 2, -1, 0.5}}), .labels = rows({{0, 0.3, 0.6, 1}})};
  const double neighbours = softplus(-1.5) + softplus(3) + softplus(-1);
  EXPECT_NEAR(at_row(ranklist_loss(list, 1), 0), neighbours, 1e-12);
  EXPECT_NEAR(at_row(ranklist_loss(list, 2), 0), neighbours + softplus(1.5) + softplus(2), 1e-12);
}

TEST(RewardLosses, PlackettLuceIsTheLikelihoodOfTheOrder) {
  const at::Tensor loss = plackett_luce_loss({.scores = rows({{0.5, 2, 1}}), .labels = rows({{1, 3, 2}})});
  const double a = std::exp(2), b = std::exp(1), c = std::exp(0.5);
  EXPECT_NEAR(at_row(loss, 0), -std::log(a / (a + b + c)) - std::log(b / (b + c)), 1e-12);
}

TEST(RewardLosses, RatingsThatAreMissingDoNotCount) {
  const at::Tensor loss = rating_loss({.scores = rows({{1, 4}}), .labels = rows({{3, NAN}})});
  EXPECT_NEAR(at_row(loss, 0), 4, 1e-12);
}

TEST(RewardLosses, NegativesAreThePicturesAndPromptsOfOtherGroups) {
  at::manual_seed(2);
  const at::Tensor s = at::randn({3, 3, 2}, at::kDouble);
  at::Tensor same = at::eye(3, at::kBool);
  same[0][2] = same[2][0] = true;
  const at::Tensor found = in_batch_loss(s, same);
  const auto e = [&](int64_t prompt, int64_t group, int64_t item) {
    return std::exp(s[prompt][group][item].item<double>());
  };
  const double pictures = e(0, 0, 0) / (e(0, 0, 0) + e(0, 1, 0) + e(0, 1, 1));
  const double prompts = e(0, 0, 0) / (e(0, 0, 0) + e(1, 0, 0));
  EXPECT_NEAR(at_row(found, 0), -(std::log(pictures) + std::log(prompts)) / 2, 1e-12);
  EXPECT_NEAR(at_row(in_batch_loss(s, at::ones({3, 3}, at::kBool)), 1), 0, 1e-12);
}

TEST(RewardLosses, WeightsAreNormalisedInsideTheBatch) {
  const at::Tensor losses = at::tensor({1.0, 4.0}, at::kDouble);
  EXPECT_NEAR(weighted_mean(losses, at::tensor({0.5, 0.25}, at::kDouble)).item<double>(), 2, 1e-12);
  EXPECT_NEAR(weighted_mean(losses, {}).item<double>(), 2.5, 1e-12);
  EXPECT_THROW(weighted_mean(losses, at::zeros({2}, at::kDouble)), Error);
}

// Every loss of the registry, by finite differences of scores and of the tie parameter.
TEST(RewardLosses, GradientsEqualFiniteDifferences) {
  at::manual_seed(1);
  for (const RewardLoss& loss : reward_losses()) {
    const int64_t k = loss.groups == RewardGroups::kPairs ? 2 : 4;
    at::Tensor scores = at::randn({3, k}, at::kDouble).requires_grad_();
    at::Tensor log_tie = at::scalar_tensor(-0.4, at::kDouble).requires_grad_();
    at::Tensor labels = at::rand({3, k}, at::kDouble) + at::arange(k, at::kDouble);
    if (k == 2) labels = rows({{1, 0}, {0.5, 0.5}, {0.3, 0.7}});
    const auto value = [&](const at::Tensor& s, const at::Tensor& t) {
      return loss.compute({.scores = s, .labels = labels, .log_tie = t}, loss.parameters).sum();
    };
    value(scores, log_tie).backward();
    const auto check = [&](const at::Tensor& tensor, const at::Tensor& found, auto&& of) {
      at::Tensor expected = at::empty_like(tensor.detach());
      constexpr double kStep = 1e-6;
      for (int64_t i = 0; i < tensor.numel(); ++i) {
        const auto moved = [&](double step) {
          at::Tensor copy = tensor.detach().clone();
          copy.view(-1)[i] += step;
          return of(copy).template item<double>();
        };
        expected.view(-1)[i] = (moved(kStep) - moved(-kStep)) / (2 * kStep);
      }
      EXPECT_TRUE(near(found, expected, 1e-7)) << loss.name;
    };
    check(scores, scores.grad(), [&](const at::Tensor& s) { return value(s, log_tie.detach()); });
    if (log_tie.grad().defined()) {
      check(log_tie, log_tie.grad(), [&](const at::Tensor& t) { return value(scores.detach(), t); });
    }
  }
}

TEST(RewardLosses, UnknownNamesAreRefused) {
  EXPECT_THROW(find_reward_loss("elo"), Error);
  EXPECT_EQ(find_reward_loss("hps").parameters.at("margin"), 1);
}

}  // namespace
}  // namespace prefusion::losses
