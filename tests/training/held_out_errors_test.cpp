#include "training/held_out_errors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "losses/registry.h"
#include "tests/losses/make_errors.h"
#include "training/run_fingerprint.h"

namespace prefusion::training {
namespace {

const losses::ObjectiveInfo& info_of(const char* name) {
  return losses::find_objective(name).info;
}

// Two timesteps, three pairs. All numbers are small binary fractions.
HeldOutErrors three_pairs() {
  HeldOutErrors held_out;
  held_out.timesteps = {100, 700};
  held_out.error_ref = at::full({2, 3, 2}, 0.5, at::kDouble);
  held_out.error_ref[1] = 0.25;
  held_out.error = held_out.error_ref.clone();
  held_out.labels = at::tensor({1.0, 0.0}, at::kDouble).repeat({3, 1});
  return held_out;
}

TEST(HeldOutErrors, DriftIsTheErrorOverThatOfTheStart) {
  HeldOutErrors held_out = three_pairs();
  held_out.error[0].select(1, 0).fill_(0.625);  // chosen, low noise: + 25 %
  held_out.error[1].select(1, 1).fill_(0.375);  // rejected, high noise: + 50 %
  const Metrics metrics = held_out_metrics(held_out, info_of("diffusion-dpo"), 10);
  EXPECT_NEAR(metrics.at("drift_chosen"), 0.4375 / 0.375 - 1, 1e-12);
  EXPECT_NEAR(metrics.at("drift_rejected"), 0.4375 / 0.375 - 1, 1e-12);
  EXPECT_NEAR(metrics.at("drift_chosen_band0"), 0.25, 1e-12);
  EXPECT_NEAR(metrics.at("drift_chosen_band1"), 0, 1e-12);
  EXPECT_NEAR(metrics.at("drift_rejected_band0"), 0, 1e-12);
  EXPECT_NEAR(metrics.at("drift_rejected_band1"), 0.5, 1e-12);
  EXPECT_NEAR(metrics.at("error_chosen_band0"), 0.625, 1e-12);
  EXPECT_NEAR(metrics.at("error_rejected_band1"), 0.375, 1e-12);
  EXPECT_EQ(metrics.at("displaced"), 1);
  EXPECT_GT(metrics.at("displaced_low"), 0.4);
}

TEST(HeldOutErrors, DisplacedAreGroupsWhoseChosenErrorRoseOverAllTimesteps) {
  HeldOutErrors held_out = three_pairs();
  held_out.error[0][0][0] += 0.125;
  held_out.error[1][0][0] -= 0.25;   // falls on the whole
  held_out.error[0][1][0] += 0.125;  // rises
  held_out.error[0][2][1] += 0.125;  // the rejected one rises
  EXPECT_NEAR(held_out_metrics(held_out, info_of("diffusion-dpo"), 10).at("displaced"), 1.0 / 3, 1e-12);
}

TEST(HeldOutErrors, CalibrationIsTheGapOfConfidenceAndAccuracyInBins) {
  HeldOutErrors held_out = three_pairs();
  const double kappa = 8;
  // Rewards differ by 8 * 0.125 = 1 everywhere; in one of the three pairs, at both timesteps, the wrong way.
  held_out.error.select(2, 1) += 0.125;
  held_out.error.select(1, 2).select(1, 1) -= 0.25;
  const double confidence = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(calibration_error(held_out, info_of("diffusion-dpo"), kappa), std::abs(confidence - 2.0 / 3), 1e-12);
  // A pair of another confidence is in a bin of its own.
  held_out.error.select(1, 0).select(1, 1) += 0.375;
  const double sure = 1 / (1 + std::exp(-4.0));
  EXPECT_NEAR(calibration_error(held_out, info_of("diffusion-dpo"), kappa),
              ((1 - sure) + 2 * std::abs(confidence - 0.5)) / 3, 1e-12);
  // At the start nothing is preferred: one half right, with a confidence of one half.
  EXPECT_NEAR(calibration_error(three_pairs(), info_of("diffusion-dpo"), kappa), 0, 1e-12);
  EXPECT_TRUE(std::isnan(calibration_error(held_out, info_of("mapo"), kappa)));
}

TEST(HeldOutErrors, SoftLabelsCountWithTheirProbability) {
  HeldOutErrors held_out = three_pairs();
  held_out.error.select(2, 1) += 0.125;
  held_out.labels = at::tensor({0.75, 0.25}, at::kDouble).repeat({3, 1});
  EXPECT_NEAR(calibration_error(held_out, info_of("diffusion-dpo"), 8), std::abs(1 / (1 + std::exp(-1.0)) - 0.75),
              1e-12);
}

TEST(HeldOutErrors, OfListsCompareAllOrderedPairs) {
  HeldOutErrors held_out;
  held_out.timesteps = {500};
  held_out.error_ref = at::full({1, 1, 3}, 0.5, at::kDouble);
  held_out.error = at::tensor({0.5, 0.625, 0.625}, at::kDouble).view({1, 1, 3});
  held_out.labels = at::tensor({1.0, 0.5, 0.5}, at::kDouble).view({1, 3});
  // Two pairs of difference 1; the last two items are equal.
  EXPECT_NEAR(calibration_error(held_out, info_of("plackett-luce"), 8), 1 - 1 / (1 + std::exp(-1.0)), 1e-12);
  EXPECT_NEAR(held_out_metrics(held_out, info_of("plackett-luce"), 8).at("drift_rejected"), 0.25, 1e-12);
}

TEST(HeldOutErrors, OfSingleItemsGoByTheirLabels) {
  HeldOutErrors held_out;
  held_out.timesteps = {500};
  held_out.error_ref = at::full({1, 4, 1}, 0.5, at::kDouble);
  held_out.error = at::tensor({0.5, 0.625, 0.5, 0.75}, at::kDouble).view({1, 4, 1});
  held_out.labels = at::tensor({1.0, 0.0, 1.0, 0.0}, at::kDouble).view({4, 1});
  const Metrics metrics = held_out_metrics(held_out, info_of("kto"), 8);
  EXPECT_NEAR(metrics.at("drift_chosen"), 0, 1e-12);
  EXPECT_NEAR(metrics.at("drift_rejected"), 0.375, 1e-12);
  EXPECT_FALSE(metrics.contains("ece"));
}

TEST(ChangedKeys, NamesKeyOldAndNewValue) {
  EXPECT_EQ(changed_keys({{"lr", 0.5}, {"old", 1}}, {{"lr", 0.5}}), "");
  EXPECT_EQ(changed_keys({{"lr", 0.5}, {"kappa", "20"}}, {{"lr", 0.25}, {"kappa", "30"}}),
            "its kappa was \"20\", this run's is \"30\"; its lr was 0.5, this run's is 0.25");
  EXPECT_EQ(changed_keys(Json::object(), {{"rank", 8}}), "its rank was null, this run's is 8");
}

}  // namespace
}  // namespace prefusion::training
