#include "training/reward/reward_selection.h"

#include <gtest/gtest.h>

#include <cmath>

namespace prefusion::training {
namespace {

RewardQuality quality(double accuracy, double log_loss) {
  return {.accuracy = {.value = accuracy}, .log_loss = log_loss};
}

TEST(RewardSelection, KeepsTheMostAccurateStepAndOfEqualOnesTheSurer) {
  RewardSelection selection;
  EXPECT_EQ(selection.best_step(), -1);
  EXPECT_TRUE(selection.consider(10, quality(0.4, 0.9)));
  EXPECT_TRUE(selection.consider(20, quality(0.7, 0.8)));
  EXPECT_FALSE(selection.consider(30, quality(0.6, 0.1)));
  EXPECT_FALSE(selection.consider(40, quality(0.7, 0.8)));
  EXPECT_EQ(selection.measurements_since(), 2);
  EXPECT_TRUE(selection.consider(50, quality(0.7, 0.7)));
  EXPECT_EQ(selection.best_step(), 50);
  EXPECT_EQ(selection.measurements_since(), 0);
}

TEST(RewardSelection, TiesAloneCountAsChance) {
  RewardSelection selection;
  EXPECT_TRUE(selection.consider(1, quality(NAN, 0.7)));
  EXPECT_FALSE(selection.consider(2, quality(0.4, 0.6)));
  EXPECT_TRUE(selection.consider(3, quality(0.6, 0.9)));
}

TEST(RewardSelection, GoesOnWhereItWas) {
  RewardSelection selection;
  selection.consider(1, quality(0.7, 0.5));
  selection.consider(2, quality(0.6, 0.5));
  RewardSelection resumed;
  resumed.load_state(selection.state());
  EXPECT_EQ(resumed.state(), selection.state());
  EXPECT_EQ(resumed.measurements_since(), 1);
  EXPECT_FALSE(resumed.consider(3, quality(0.7, 0.6)));
  EXPECT_THROW(resumed.load_state(Json::object()), Json::exception);
}

}  // namespace
}  // namespace prefusion::training
