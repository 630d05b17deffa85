// bco-unpaired and kto-threshold.
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/losses/make_errors.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// Four single items with kappa * s = logits at kappa 1000.
GroupErrors items(const std::vector<double>& logits, const std::vector<double>& labels) {
  GroupErrors errors;
  errors.error = 0.1 - at::tensor(logits, at::kDouble).unsqueeze(1) / 1000;
  errors.error_ref = at::full_like(errors.error, 0.1);
  errors.labels = at::tensor(labels, at::kDouble).unsqueeze(1);
  return errors;
}

TEST(BcoUnpaired, ClassifiesEachItem) {
  const std::vector<double> logits = {1, 2, -1, 0.5};
  const double expected =
      (-log_sigmoid(1 - 0.25) - log_sigmoid(-(2 - 0.25)) - log_sigmoid(-1 - 0.25) - log_sigmoid(-(0.5 - 0.25))) / 4;
  EXPECT_NEAR(loss_of("bco-unpaired", items(logits, {1, 0, 1, 0}), "delta=0.25"), expected, 1e-9);
}

TEST(BcoUnpaired, MixesBothClassesForSoftLabels) {
  const double soft = loss_of("bco-unpaired", items({1, 2, -1, 0}, {0.3, 0.3, 0.3, 0.3}));
  const double good = loss_of("bco-unpaired", items({1, 2, -1, 0}, {1, 1, 1, 1}));
  const double bad = loss_of("bco-unpaired", items({1, 2, -1, 0}, {0, 0, 0, 0}));
  EXPECT_NEAR(soft, 0.3 * good + 0.7 * bad, 1e-12);
  EXPECT_GT(std::abs(good - bad), 0.1);
}

TEST(BcoUnpaired, OfAPairIsHalfOfBco) {
  const GroupErrors pairs = make_errors(3, 2);
  const auto at_kappa = [&](const char* name) {
    const Objective& objective = find_objective(name);
    return objective.compute(pairs, resolve_params(objective.info, "", {}, 700.0)).loss.item<double>();
  };
  EXPECT_NEAR(at_kappa("bco-unpaired"), at_kappa("bco") / 2, 1e-12);
}

TEST(BcoUnpaired, NeedsLabels) {
  GroupErrors errors = items({1, 2, 3, 4}, {1, 0, 1, 0});
  errors.labels = at::Tensor();
  EXPECT_THROW(loss_of("bco-unpaired", errors), Error);
}

TEST(KtoThreshold, IsKtoOnThresholdedScores) {
  GroupErrors errors = items({1, 2, -1, 0.5}, {0, 0, 0, 0});
  errors.scores = at::tensor({21.0, 19.5, 20.0, 22.0}, at::kDouble).unsqueeze(1);  // 20 is not above 20
  const GroupErrors expected = items({1, 2, -1, 0.5}, {1, 0, 0, 1});
  EXPECT_NEAR(loss_of("kto-threshold", errors, "threshold=20"), loss_of("kto", expected), 1e-12);
  EXPECT_GT(std::abs(loss_of("kto-threshold", errors, "threshold=21.5") - loss_of("kto", expected)), 1e-2);
}

TEST(KtoThreshold, MetricsFollowItsLabels) {
  GroupErrors errors = items({1, 2, -1, 0.5}, {0, 1, 1, 0});
  errors.scores = at::tensor({21.0, 19.5, 20.0, 22.0}, at::kDouble).unsqueeze(1);
  const auto found = compute("kto-threshold", errors, "threshold=20").metrics;
  const auto expected = compute("kto", items({1, 2, -1, 0.5}, {1, 0, 0, 1})).metrics;
  for (const char* name : {"accuracy", "margin", "error_chosen", "error_rejected"}) {
    EXPECT_NEAR(found.at(name).item<double>(), expected.at(name).item<double>(), 1e-12) << name;
  }
}

TEST(KtoThreshold, ComparesTheLabelsWithoutScores) {
  const GroupErrors soft = items({1, 2, -1, 0.5}, {0.9, 0.1, 0.5, 0.7});
  EXPECT_NEAR(loss_of("kto-threshold", soft), loss_of("kto", items({1, 2, -1, 0.5}, {1, 0, 0, 1})), 1e-12);
  GroupErrors bare = soft;
  bare.labels = at::Tensor();
  EXPECT_THROW(loss_of("kto-threshold", bare), Error);
}

}  // namespace
}  // namespace prefusion::losses
