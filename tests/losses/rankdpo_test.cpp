#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// The formula of the paper, pair by pair, for one list.
double reference_loss(const std::vector<double>& phi, const std::vector<double>& s, double kappa) {
  const auto rank = [&](size_t i) {  // best 1, equal phi in the order given
    int better = 1;
    for (size_t j = 0; j < phi.size(); ++j) better += phi[j] > phi[i] || (phi[j] == phi[i] && j < i) ? 1 : 0;
    return better;
  };
  double loss = 0;
  for (size_t i = 0; i < phi.size(); ++i) {
    for (size_t j = 0; j < phi.size(); ++j) {
      if (phi[i] <= phi[j]) continue;
      const double gain = std::abs(std::exp2(phi[i]) - std::exp2(phi[j]));
      const double discount = std::abs(1 / std::log(1.0 + rank(i)) - 1 / std::log(1.0 + rank(j)));
      loss -= gain * discount * log_sigmoid(kappa * (s[i] - s[j]));
    }
  }
  return loss;
}

GroupErrors one_list(const std::vector<double>& phi, const std::vector<double>& s) {
  GroupErrors errors;
  const auto k = static_cast<int64_t>(phi.size());
  errors.error_ref = at::full({1, k}, 0.1, at::kDouble);
  errors.error = errors.error_ref - at::tensor(s, at::kDouble).unsqueeze(0);
  errors.labels = at::tensor(phi, at::kDouble).unsqueeze(0);
  return errors;
}

TEST(RankDpo, EqualsThePaperForUnsortedListsWithTies) {
  const std::vector<double> s = {2e-4, -5e-4, 1e-3, 3e-4, 0};
  for (const auto& phi : std::vector<std::vector<double>>{
           {1, 0.75, 0.5, 0.25, 0}, {0.1, 0.9, 0.4, 0.6, 0.2}, {0.5, 0.5, 1, 0, 0.5}, {0.3, 0.3, 0.3, 0.3, 0.3}}) {
    EXPECT_NEAR(loss_of("rankdpo", one_list(phi, s)), reference_loss(phi, s, 2500), 1e-9);
  }
}

TEST(RankDpo, ListOfTwoIsDpoTimesGainAndDiscount) {
  for (const auto& [phi0, phi1] : std::vector<std::pair<double, double>>{{1, 0}, {0.8, 0.3}}) {
    const GroupErrors pair = one_list({phi0, phi1}, {3e-4, -1e-4});
    const double gain = std::exp2(phi0) - std::exp2(phi1);
    EXPECT_NEAR(loss_of("rankdpo", pair), gain * 0.5325 * loss_of("diffusion-dpo", pair), 1e-4 * gain);
  }
}

TEST(RankDpo, DoesNotDependOnTheOrderOfTheItems) {
  EXPECT_NEAR(loss_of("rankdpo", one_list({0.2, 0.9, 0.5}, {1e-4, 2e-4, 3e-4})),
              loss_of("rankdpo", one_list({0.9, 0.5, 0.2}, {2e-4, 3e-4, 1e-4})), 1e-12);
}

TEST(RankDpo, SumsOverPairsAndAveragesOverGroups) {
  const GroupErrors one = one_list({1, 0.5, 0}, {1e-4, 2e-4, 3e-4});
  GroupErrors two = one;
  two.error = one.error.repeat({2, 1});
  two.error_ref = one.error_ref.repeat({2, 1});
  two.labels = one.labels.repeat({2, 1});
  EXPECT_NEAR(loss_of("rankdpo", two), loss_of("rankdpo", one), 1e-12);
  GroupErrors at_reference = one;
  at_reference.error = one.error_ref.clone();
  // log 2 times the sum of the three weights.
  EXPECT_NEAR(loss_of("rankdpo", at_reference), reference_loss({1, 0.5, 0}, {0, 0, 0}, 2500), 1e-12);
}

TEST(RankDpo, NeedsLabelsOrScores) {
  GroupErrors errors = one_list({0, 1, 0.5}, {1e-4, 2e-4, 3e-4});
  const double expected = loss_of("rankdpo", errors);
  std::swap(errors.labels, errors.scores);
  EXPECT_NEAR(loss_of("rankdpo", errors), expected, 1e-12);
  errors.scores = at::Tensor();
  EXPECT_THROW(loss_of("rankdpo", errors), Error);
}

}  // namespace
}  // namespace prefusion::losses
