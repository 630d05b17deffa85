#include "training/guards.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/logging.h"

namespace prefusion::training {
namespace {

class Guard : public GradientGuard {
 public:
  explicit Guard(double spike_factor, int64_t budget = 0) : GradientGuard(spike_factor, budget, at::kCPU) {}

  // Whether the step is taken; settles where it is told to.
  bool takes(double loss, double norm, int64_t step, const std::string& ids = "x", bool settles = true) {
    const at::Tensor taken = judge(at::scalar_tensor(loss, at::kFloat), at::scalar_tensor(norm, at::kFloat), step, ids);
    if (settles) settle();
    return taken.item<float>() == 1.0F;
  }
};

Guard warmed_up(double spike_factor, int64_t budget = 0) {
  Guard guard(spike_factor, budget);
  for (int64_t step = 1; step <= 20; ++step) {
    EXPECT_TRUE(guard.takes(0.7, 1.0 + 0.01 * static_cast<double>(step), step));
  }
  return guard;
}

TEST(GradientGuard, SkipsASpike) {
  Guard guard = warmed_up(8.0);
  EXPECT_TRUE(guard.takes(0.7, 8.0, 21));  // the median is about 1.1
  EXPECT_FALSE(guard.takes(0.7, 9.5, 22));
  EXPECT_EQ(guard.num_skipped(), 1);
}

TEST(GradientGuard, TakesAnythingBeforeItKnowsTheDistribution) {
  Guard guard(8.0);
  for (int64_t step = 1; step <= 19; ++step) guard.takes(0.7, 1.0, step);
  EXPECT_TRUE(guard.takes(0.7, 1000.0, 20));
}

TEST(GradientGuard, FactorZeroSkipsNothing) {
  Guard guard = warmed_up(0.0);
  EXPECT_TRUE(guard.takes(0.7, 1e9, 21));
}

TEST(GradientGuard, GetsUsedToLargerNorms) {
  Guard guard = warmed_up(8.0);
  int64_t skipped = 0;
  for (int64_t step = 21; step < 100; ++step) skipped += guard.takes(0.7, 20.0, step) ? 0 : 1;
  EXPECT_GT(skipped, 0);
  EXPECT_LT(skipped, 40);
  EXPECT_TRUE(guard.takes(0.7, 20.0, 100));
}

TEST(GradientGuard, NonFiniteStopsTheRunAndNamesTheRecords) {
  for (const auto& [loss, norm] : {std::pair{std::nan(""), 1.0}, {1.0, static_cast<double>(INFINITY)}}) {
    Guard guard(8.0);
    try {
      guard.takes(loss, norm, 17, "a.parquet:3, a.parquet:9");
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 4);
      EXPECT_NE(std::string(error.what()).find("step 17"), std::string::npos);
      EXPECT_NE(std::string(error.what()).find("a.parquet:3, a.parquet:9"), std::string::npos);
    }
  }
}

TEST(GradientGuard, NonFiniteStepsAreSkippedUpToTheBudget) {
  Guard guard(8.0, 2);
  EXPECT_FALSE(guard.takes(std::nan(""), 1.0, 1));
  EXPECT_TRUE(guard.takes(0.7, 1.0, 2));
  EXPECT_FALSE(guard.takes(0.7, std::nan(""), 3));
  EXPECT_EQ(guard.num_skipped(), 2);
  EXPECT_THROW(guard.takes(std::nan(""), 1.0, 4), Error);
}

TEST(GradientGuard, DecidesBeforeAnybodyAsks) {
  Guard guard(8.0, 1), asked(8.0, 1);
  const auto norm_of = [](int64_t step) { return step % 9 == 0 ? 30.0 : 1.0 + 0.01 * static_cast<double>(step); };
  for (int64_t step = 1; step <= 40; ++step) {
    EXPECT_EQ(guard.takes(0.7, norm_of(step), step, "x", /*settles=*/false), asked.takes(0.7, norm_of(step), step));
  }
  EXPECT_FALSE(guard.takes(std::nan(""), 1.0, 41, "x", /*settles=*/false));
  EXPECT_TRUE(guard.takes(0.7, 1.0, 42, "x", /*settles=*/false));
  EXPECT_EQ(guard.num_skipped(), 0);
  guard.settle();
  EXPECT_EQ(guard.num_skipped(), asked.num_skipped() + 1);
  EXPECT_EQ(asked.num_skipped(), 2);  // of the four, those after the twentieth step
}

TEST(GradientGuard, SettlingNamesTheStepThatBrokeTheBudget) {
  Guard guard(8.0, 1);
  for (int64_t step = 5; step <= 9; ++step) guard.takes(step < 7 ? 0.7 : std::nan(""), 1.0, step, "x", false);
  try {
    guard.settle();
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("step 8"), std::string::npos) << error.what();
  }
}

TEST(GradientGuard, StateGoesOn) {
  Guard guard = warmed_up(8.0, 3);
  guard.takes(std::nan(""), 1.0, 21);
  guard.takes(0.7, 100.0, 22);
  Guard resumed(8.0, 3);
  resumed.load_state(Json::parse(guard.state().dump()));
  EXPECT_EQ(resumed.num_skipped(), 2);
  EXPECT_FALSE(resumed.takes(0.7, 100.0, 23));
  EXPECT_FALSE(resumed.takes(std::nan(""), 1.0, 24));
  EXPECT_FALSE(resumed.takes(std::nan(""), 1.0, 25));
  EXPECT_THROW(resumed.takes(std::nan(""), 1.0, 26), Error);
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
