#include "losses/metrics.h"

#include <gtest/gtest.h>

#include "tests/losses/make_errors.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

double metric(const LossOutput& output, const std::string& name) {
  return output.metrics.at(name).item<double>();
}

TEST(CommonMetrics, PairsCountTiesOneHalfAndScaleTheMarginByKappa) {
  GroupErrors errors;
  errors.error_ref = at::full({4, 2}, 0.25, at::kDouble);
  errors.error = at::tensor({0.125, 0.25, 0.25, 0.25, 0.5, 0.25, 0.25, 0.375}, at::kDouble).view({4, 2});
  const LossOutput output = compute("diffusion-dpo", errors);
  EXPECT_NEAR(metric(output, "accuracy"), (1 + 0.5 + 0 + 1) / 4, 1e-12);
  EXPECT_NEAR(metric(output, "margin"), 2500 * (0.125 + 0 - 0.25 + 0.125) / 4, 1e-9);
  EXPECT_NEAR(metric(output, "error_chosen"), (0.125 + 0.25 + 0.5 + 0.25) / 4, 1e-12);
  EXPECT_NEAR(metric(output, "error_rejected"), (0.25 * 3 + 0.375) / 4, 1e-12);
  EXPECT_NEAR(metric(output, "error_chosen_ref"), 0.25, 1e-12);
  EXPECT_NEAR(metric(output, "error_rejected_ref"), 0.25, 1e-12);
}

TEST(CommonMetrics, ReferenceFreeObjectivesCompareTheErrorsThemselves) {
  GroupErrors errors;
  errors.error = at::tensor({0.1, 0.2, 0.4, 0.3}, at::kDouble).view({2, 2});
  const LossOutput mapo = compute("mapo", errors);
  EXPECT_NEAR(metric(mapo, "accuracy"), 0.5, 1e-12);
  EXPECT_NEAR(metric(mapo, "margin"), 0.0, 1e-12);
  EXPECT_FALSE(mapo.metrics.contains("error_chosen_ref"));
  errors.error = at::tensor({0.1, 0.2}, at::kDouble).view({1, 2});
  EXPECT_NEAR(metric(compute("simpo", errors), "margin"), 250, 1e-9);
}

TEST(CommonMetrics, GradientFactorIsTheMeanSlopeOfALogisticLoss) {
  GroupErrors errors;
  errors.error_ref = at::full({2, 2}, 0.5, at::kDouble);
  errors.error = at::tensor({0.5, 0.5004, 0.5004, 0.5}, at::kDouble).view({2, 2});
  EXPECT_NEAR(metric(compute("diffusion-dpo", errors), "gradient_factor"),
              (1 / (1 + std::exp(1.0)) + 1 / (1 + std::exp(-1.0))) / 2, 1e-9);
  errors.error = at::full({2, 2}, 0.5, at::kDouble);
  EXPECT_NEAR(metric(compute("diffusion-dpo", errors), "gradient_factor"), 0.5, 1e-12);
  EXPECT_FALSE(compute("mapo", errors).metrics.contains("gradient_factor"));
  errors.error_ref = at::full({1, 3}, 0.5, at::kDouble);
  errors.error = at::tensor({0.5, 0.5004, 0.5}, at::kDouble).view({1, 3});
  errors.labels = at::tensor({1.0, 0.0, 0.0}, at::kDouble).view({1, 3});
  EXPECT_NEAR(metric(compute("plackett-luce", errors), "gradient_factor"), (1 / (1 + std::exp(1.0)) + 0.5) / 2, 1e-9);
}

TEST(CommonMetrics, ListsCountAllPairsOfDifferentPreference) {
  GroupErrors errors;
  errors.error_ref = at::full({1, 4}, 0.5, at::kDouble);
  errors.error = at::tensor({0.4, 0.1, 0.3, 0.3}, at::kDouble).view({1, 4});
  errors.labels = at::tensor({0.0, 1.0, 0.5, 0.5}, at::kDouble).view({1, 4});
  const LossOutput output = compute("rankdpo", errors);
  EXPECT_NEAR(metric(output, "accuracy"), 1.0, 1e-12);  // five ordered pairs, all right; the tied pair does not count
  EXPECT_NEAR(metric(output, "error_chosen"), 0.1, 1e-12);
  EXPECT_NEAR(metric(output, "error_rejected"), 0.4, 1e-12);
  EXPECT_NEAR(metric(output, "margin"), 2500 * 0.3, 1e-9);
  errors.error = at::tensor({0.1, 0.2, 0.1, 0.3}, at::kDouble).view({1, 4});
  // (1,0) wrong, (1,2) wrong, (1,3) right, (2,0) tie, (3,0) wrong
  EXPECT_NEAR(metric(compute("rankdpo", errors), "accuracy"), 1.5 / 5, 1e-12);
}

TEST(CommonMetrics, ListsOfTwoFollowTheirLabelsNotTheirPositions) {
  GroupErrors errors;
  errors.error_ref = at::full({1, 2}, 0.5, at::kDouble);
  errors.error = at::tensor({0.2, 0.1}, at::kDouble).view({1, 2});
  errors.labels = at::tensor({0.0, 1.0}, at::kDouble).view({1, 2});
  const LossOutput output = compute("rankdpo", errors);
  EXPECT_NEAR(metric(output, "accuracy"), 1, 1e-12);
  EXPECT_NEAR(metric(output, "error_chosen"), 0.1, 1e-12);
  EXPECT_NEAR(metric(output, "margin"), 2500 * 0.1, 1e-9);
}

TEST(CommonMetrics, ListsReportKendallsTauOfPolicyAndReference) {
  GroupErrors errors;
  errors.error = at::tensor({0.4, 0.1, 0.2, 0.3}, at::kDouble).view({1, 4});
  errors.error_ref = at::tensor({0.3, 0.2, 0.2, 0.1}, at::kDouble).view({1, 4});
  errors.labels = at::tensor({0.25, 1.0, 0.5, 0.0}, at::kDouble).view({1, 4});
  const LossOutput output = compute("plackett-luce", errors);
  // Policy: of six pairs only (0, 3) is wrong. Reference: (1,2) tied, (1,0) and (2,0) right, those with item 3 wrong.
  EXPECT_NEAR(metric(output, "ranking_accuracy"), (5 - 1) / 6.0, 1e-12);
  EXPECT_NEAR(metric(output, "ranking_accuracy_ref"), (2 - 3) / 6.0, 1e-12);
  EXPECT_FALSE(compute("diffusion-dpo", make_errors(2, 2)).metrics.contains("ranking_accuracy"));
}

TEST(CommonMetrics, UnpairedItemsAreComparedAcrossTheBatch) {
  GroupErrors errors;
  errors.error_ref = at::full({4, 1}, 0.5, at::kDouble);
  errors.error = at::tensor({0.1, 0.2, 0.3, 0.2}, at::kDouble).view({4, 1});
  errors.labels = at::tensor({1.0, 0.0, 1.0, 0.0}, at::kDouble).view({4, 1});
  const LossOutput output = compute("kto", errors);
  EXPECT_NEAR(metric(output, "accuracy"), 0.5, 1e-12);
  EXPECT_NEAR(metric(output, "error_chosen"), 0.2, 1e-12);
  EXPECT_NEAR(metric(output, "error_rejected"), 0.2, 1e-12);
  errors.labels.fill_(1.0);
  EXPECT_TRUE(std::isnan(metric(compute("kto", errors), "accuracy")));
}

}  // namespace
}  // namespace prefusion::losses
