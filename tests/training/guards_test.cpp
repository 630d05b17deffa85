#include "training/guards.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/logging.h"

namespace prefusion::training {
namespace {

GradientGuard warmed_up(double spike_factor, int64_t budget = 0) {
  GradientGuard guard(spike_factor, budget);
  for (int64_t step = 1; step <= 20; ++step) {
    EXPECT_EQ(guard.judge(0.7, 1.0 + 0.01 * static_cast<double>(step), step, "x"), StepVerdict::kTake);
  }
  return guard;
}

TEST(GradientGuard, SkipsASpike) {
  GradientGuard guard = warmed_up(8.0);
  EXPECT_EQ(guard.judge(0.7, 8.0, 21, "x"), StepVerdict::kTake);  // the median is about 1.1
  EXPECT_EQ(guard.judge(0.7, 9.5, 22, "x"), StepVerdict::kSkipSpike);
  EXPECT_EQ(guard.num_skipped(), 1);
}

TEST(GradientGuard, TakesAnythingBeforeItKnowsTheDistribution) {
  GradientGuard guard(8.0, 0);
  for (int64_t step = 1; step <= 19; ++step) guard.judge(0.7, 1.0, step, "x");
  EXPECT_EQ(guard.judge(0.7, 1000.0, 20, "x"), StepVerdict::kTake);
}

TEST(GradientGuard, FactorZeroSkipsNothing) {
  GradientGuard guard = warmed_up(0.0);
  EXPECT_EQ(guard.judge(0.7, 1e9, 21, "x"), StepVerdict::kTake);
}

TEST(GradientGuard, GetsUsedToLargerNorms) {
  GradientGuard guard = warmed_up(8.0);
  int64_t skipped = 0;
  for (int64_t step = 21; step < 100; ++step) skipped += guard.judge(0.7, 20.0, step, "x") != StepVerdict::kTake;
  EXPECT_GT(skipped, 0);
  EXPECT_LT(skipped, 40);
  EXPECT_EQ(guard.judge(0.7, 20.0, 100, "x"), StepVerdict::kTake);
}

TEST(GradientGuard, NonFiniteStopsTheRunAndNamesTheRecords) {
  for (const auto& [loss, norm] : {std::pair{std::nan(""), 1.0}, {1.0, static_cast<double>(INFINITY)}}) {
    GradientGuard guard(8.0, 0);
    try {
      guard.judge(loss, norm, 17, "a.parquet:3, a.parquet:9");
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 4);
      EXPECT_NE(std::string(error.what()).find("step 17"), std::string::npos);
      EXPECT_NE(std::string(error.what()).find("a.parquet:3, a.parquet:9"), std::string::npos);
    }
  }
}

TEST(GradientGuard, NonFiniteStepsAreSkippedUpToTheBudget) {
  GradientGuard guard(8.0, 2);
  EXPECT_EQ(guard.judge(std::nan(""), 1.0, 1, "x"), StepVerdict::kSkipNonfinite);
  EXPECT_EQ(guard.judge(0.7, 1.0, 2, "x"), StepVerdict::kTake);
  EXPECT_EQ(guard.judge(0.7, std::nan(""), 3, "x"), StepVerdict::kSkipNonfinite);
  EXPECT_EQ(guard.num_skipped(), 2);
  EXPECT_THROW(guard.judge(std::nan(""), 1.0, 4, "x"), Error);
}

TEST(GradientGuard, StateGoesOn) {
  GradientGuard guard = warmed_up(8.0, 3);
  guard.judge(std::nan(""), 1.0, 21, "x");
  guard.judge(0.7, 100.0, 22, "x");
  GradientGuard resumed(8.0, 3);
  resumed.load_state(Json::parse(guard.state().dump()));
  EXPECT_EQ(resumed.num_skipped(), 2);
  EXPECT_EQ(resumed.judge(0.7, 100.0, 23, "x"), StepVerdict::kSkipSpike);
  EXPECT_EQ(resumed.judge(std::nan(""), 1.0, 24, "x"), StepVerdict::kSkipNonfinite);
  EXPECT_EQ(resumed.judge(std::nan(""), 1.0, 25, "x"), StepVerdict::kSkipNonfinite);
  EXPECT_THROW(resumed.judge(std::nan(""), 1.0, 26, "x"), Error);
}

TEST(OverOptimisationAlarm, RingsWhenTheChosenErrorRisesWithTheMargin) {
  OverOptimisationAlarm alarm(0.05);
  EXPECT_EQ(alarm.check(0, 0.5, 0.0, 0.100, 0.100), "");
  EXPECT_EQ(alarm.check(100, 0.6, 0.01, 0.104, 0.100), "");
  const std::string warning = alarm.check(200, 0.7, 0.02, 0.106, 0.100);
  EXPECT_NE(warning.find("step 200"), std::string::npos) << warning;
  EXPECT_NE(warning.find("6 %"), std::string::npos) << warning;
}

TEST(OverOptimisationAlarm, RisingErrorWithoutAMarginIsNoOverOptimisation) {
  OverOptimisationAlarm alarm(0.05);
  EXPECT_EQ(alarm.check(100, 0.5, -0.01, 0.2, 0.1), "");
}

TEST(OverOptimisationAlarm, RingsWhenHeldOutAccuracyFalls) {
  OverOptimisationAlarm alarm(0.05);
  EXPECT_EQ(alarm.check(0, 0.60, 0.0, 0.1, 0.1), "");
  EXPECT_EQ(alarm.check(1, 0.55, 0.0, 0.1, 0.1), "");
  EXPECT_NE(alarm.check(2, 0.50, 0.0, 0.1, 0.1), "");
}

TEST(OverOptimisationAlarm, WithoutAReferenceComparesWithTheStart) {
  OverOptimisationAlarm alarm(0.05);
  EXPECT_EQ(alarm.check(0, 0.5, 0.1, 0.100, 0.0), "");
  EXPECT_EQ(alarm.check(1, 0.5, 0.1, 0.104, 0.0), "");
  OverOptimisationAlarm resumed(0.05);
  resumed.load_state(Json::parse(alarm.state().dump()));
  EXPECT_NE(resumed.check(2, 0.5, 0.1, 0.106, 0.0), "");
}

TEST(DisplacementWarning, IsForAMarginThatMostChosenItemsPayFor) {
  EXPECT_EQ(displacement_warning(7, 0.6, 0.49, 1.0), "");
  EXPECT_EQ(displacement_warning(7, 0.8, 0.6, -1.0), "");
  const std::string text = displacement_warning(7, 0.8125, 0.6, 0.3);
  for (const char* part : {"displacement", "step 7", "0.3", "81.3 %"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in: " << text;
  }
}

}  // namespace
}  // namespace prefusion::training
