// lambdarank, list-net, ranklist, dpo-all-pairs, dgpo and capo.
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// One list with preferences phi and kappa * s = logits at kappa 2500.
GroupErrors one_list(const std::vector<double>& phi, const std::vector<double>& logits) {
  GroupErrors errors;
  errors.error = 10 - at::tensor(logits, at::kDouble).unsqueeze(0) / 2500;
  errors.error_ref = at::full_like(errors.error, 10);
  errors.labels = at::tensor(phi, at::kDouble).unsqueeze(0);
  return errors;
}

GroupErrors with_scores(GroupErrors errors, const std::vector<double>& scores) {
  errors.scores = at::tensor(scores, at::kDouble).unsqueeze(0);
  return errors;
}

double softplus(double x) {
  return std::log1p(std::exp(x));
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

double lambdarank(const std::vector<double>& phi, const std::vector<double>& logits) {
  const auto rank = [&](size_t i) {  // by the policy, equal logits in the order given
    int better = 1;
    for (size_t j = 0; j < logits.size(); ++j) {
      better += logits[j] > logits[i] || (logits[j] == logits[i] && j < i) ? 1 : 0;
    }
    return better;
  };
  double loss = 0;
  for (size_t i = 0; i < phi.size(); ++i) {
    for (size_t j = 0; j < phi.size(); ++j) {
      if (phi[i] <= phi[j]) continue;
      const double gain = std::exp2(phi[i]) - std::exp2(phi[j]);
      const double discount = std::abs(1 / std::log(1.0 + rank(i)) - 1 / std::log(1.0 + rank(j)));
      loss += gain * discount * softplus(logits[j] - logits[i]);
    }
  }
  return loss;
}

TEST(LambdaRank, RanksByThePolicy) {
  for (const auto& phi : std::vector<std::vector<double>>{{1, 0.6, 0.3, 0}, {0, 1, 0.5, 0.5}, {0.2, 0.2, 0.2, 0.2}}) {
    for (const auto& logits : std::vector<std::vector<double>>{{0.5, 2, -1, 0}, {0, 0, 0, 0}}) {
      EXPECT_NEAR(loss_of("lambdarank", one_list(phi, logits)), lambdarank(phi, logits), 1e-9);
    }
  }
}

TEST(LambdaRank, IsRankDpoWhereThePolicyAgreesWithTheOrder) {
  const GroupErrors agreed = one_list({0.5, 1, 0}, {1, 2, 0});
  EXPECT_NEAR(loss_of("lambdarank", agreed), loss_of("rankdpo", agreed), 1e-12);
  const GroupErrors other = one_list({0.5, 1, 0}, {2, 0, 1});
  EXPECT_GT(std::abs(loss_of("lambdarank", other) - loss_of("rankdpo", other)), 1e-2);
}

TEST(ListNet, IsTheCrossEntropyOfPreferencesAndImprovements) {
  const std::vector<double> phi = {0.2, 1, 0.5};
  const std::vector<double> logits = {1, -1, 0.5};
  double target_sum = 0, policy_sum = 0, expected = 0;
  for (int i = 0; i < 3; ++i) target_sum += std::exp(phi[i] / 0.5), policy_sum += std::exp(logits[i]);
  for (int i = 0; i < 3; ++i)
    expected -= std::exp(phi[i] / 0.5) / target_sum * std::log(std::exp(logits[i]) / policy_sum);
  EXPECT_NEAR(loss_of("list-net", one_list(phi, logits), "temperature=0.5"), expected, 1e-9);
}

TEST(ListNet, ListOfTwoIsDpoWithSmoothing) {
  const GroupErrors pair = one_list({0.8, 0.3}, {1, -0.5});
  const std::string eps = "label_smoothing=" + std::to_string(sigmoid(-0.5 / 0.25));
  EXPECT_NEAR(loss_of("list-net", pair, "temperature=0.25"), loss_of("dpo-smooth", pair, eps), 1e-5);
  EXPECT_NEAR(loss_of("list-net", pair, "temperature=1e-3"), loss_of("diffusion-dpo", pair), 1e-9);
}

TEST(RankList, ComparesItemsUpToSomePlacesApart) {
  const GroupErrors list = one_list({0, 0.3, 0.6, 1}, {1, 2, -1, 0.5});  // best first: 0.5, -1, 2, 1
  const double neighbours = softplus(-1.5) + softplus(3) + softplus(-1);
  const double second = softplus(1.5) + softplus(2);
  EXPECT_NEAR(loss_of("ranklist", list, "strides=1"), neighbours, 1e-9);
  EXPECT_NEAR(loss_of("ranklist", list), neighbours + second, 1e-9);
  EXPECT_NEAR(loss_of("ranklist", list, "strides=9"), 6 * loss_of("dpo-all-pairs", list), 1e-9);
}

TEST(RankList, DoesNotCompareTiedNeighbours) {
  EXPECT_NEAR(loss_of("ranklist", one_list({1, 0.5, 0.5}, {1, 5, -5}), "strides=1"), softplus(4), 1e-9);
}

TEST(DpoAllPairs, IsTheMeanOverOrderedPairs) {
  EXPECT_NEAR(loss_of("dpo-all-pairs", one_list({0, 1, 0}, {1, 2, -1})), (softplus(-1) + softplus(-3)) / 2, 1e-9);
  EXPECT_EQ(loss_of("dpo-all-pairs", one_list({1, 1, 1}, {1, 2, -1})), 0);
  const GroupErrors pair = one_list({1, 0}, {0.5, 1});
  EXPECT_NEAR(loss_of("dpo-all-pairs", pair), loss_of("diffusion-dpo", pair), 1e-12);
}

TEST(Dgpo, WeighsErrorsByAdvantageAndByWhatIsLearned) {
  const GroupErrors list = one_list({0, 1, 0.2}, {50, -25, 10});
  const double mean = 0.4, std = std::sqrt((0.16 + 0.36 + 0.04) / 3) + 1e-4;
  double learned = 0, error = 0;
  for (int i = 0; i < 3; ++i) {
    const double advantage = (list.labels[0][i].item<double>() - mean) / std;
    learned += advantage * (list.error_ref[0][i] - list.error[0][i]).item<double>() / 3;
    error += advantage * list.error[0][i].item<double>() / 3;
  }
  const double weight = sigmoid(-100 * learned);
  EXPECT_GT(weight, 0.6);  // the policy has learned the wrong order
  EXPECT_NEAR(loss_of("dgpo", list), weight * error, 1e-9);
  const at::Tensor grad = gradient_of("dgpo", list);
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(grad[0][i].item<double>(), weight * (list.labels[0][i].item<double>() - mean) / std / 3, 1e-9);
  }
}

TEST(Dgpo, OfAPairHasTheGradientOfDpo) {
  const GroupErrors pair = one_list({1, 0}, {0.4, 1});
  const Objective& dpo = find_objective("diffusion-dpo");
  GroupErrors errors = pair;
  errors.error = pair.error.clone().requires_grad_();
  dpo.compute(errors, resolve_params(dpo.info, "", {}, 50.0)).loss.backward();
  // Up to the 1e-4 beside the standard deviation of 1/2.
  EXPECT_TRUE(near(gradient_of("dgpo", pair), errors.error.grad() / 100, 5e-4));
}

TEST(Dgpo, TakesScoresBeforeLabelsInLossAndMetrics) {
  const GroupErrors by_scores = with_scores(one_list({1, 0.5, 0}, {1, 2, 3}), {0, 0.5, 1});
  EXPECT_NEAR(loss_of("dgpo", by_scores), loss_of("dgpo", one_list({0, 0.5, 1}, {1, 2, 3})), 1e-12);
  EXPECT_NEAR(compute("dgpo", by_scores).metrics.at("accuracy").item<double>(), 1, 1e-12);
  EXPECT_NEAR(compute("rankdpo", by_scores).metrics.at("accuracy").item<double>(), 0, 1e-12);
  EXPECT_EQ(gradient_of("dgpo", one_list({1, 1, 1}, {1, 2, 3})).abs().max().item<double>(), 0);
}

TEST(Capo, RegressesTheBestAndWorstOnTheirShareOfWins) {
  const GroupErrors list = with_scores(one_list({0, 0, 0}, {0.3, 1, 0.2}), {21, 22, 19});
  const double best = (sigmoid(0.5 * 1) + sigmoid(0.5 * 3)) / 2;
  const double worst = (sigmoid(-0.5 * 2) + sigmoid(-0.5 * 3)) / 2;
  EXPECT_NEAR(loss_of("capo", list, "scale=0.5"), std::pow(best - worst - (1 - 0.2), 2), 1e-9);
  const at::Tensor grad = gradient_of("capo", list, "scale=0.5");
  EXPECT_EQ(grad[0][0].item<double>(), 0);
  EXPECT_NE(grad[0][1].item<double>(), 0);
}

TEST(Capo, OfAPairIsLeastWhereTheLogitIsTheTanhOfHalfTheScoreGap) {
  EXPECT_NEAR(loss_of("capo", with_scores(one_list({1, 0}, {std::tanh(1.5), 0}), {5, 2})), 0, 1e-12);
}

TEST(ListObjectives, DoNotDependOnTheOrderOfTheItems) {
  for (const char* name : {"lambdarank", "list-net", "ranklist", "dpo-all-pairs", "dgpo", "capo", "plackett-luce"}) {
    EXPECT_NEAR(loss_of(name, one_list({0.2, 0.9, 0.5}, {1, 2, 3})),
                loss_of(name, one_list({0.9, 0.5, 0.2}, {2, 3, 1})), 1e-10)
        << name;
  }
}

TEST(ListObjectives, NeedAnOrder) {
  for (const char* name : {"lambdarank", "list-net", "ranklist", "dpo-all-pairs", "dgpo", "capo"}) {
    GroupErrors list = one_list({1, 0.5, 0}, {1, 2, 3});
    list.labels = at::Tensor();
    EXPECT_THROW(loss_of(name, list), Error) << name;
  }
}

}  // namespace
}  // namespace prefusion::losses
