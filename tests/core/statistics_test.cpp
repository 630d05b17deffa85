#include "core/statistics.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace prefusion {
namespace {

// The bounds solve (p - rate)^2 = z^2 p (1 - p) / n for p, which is what defines the interval.
TEST(WilsonProportion, BoundsSolveTheScoreEquation) {
  for (const double successes : {1.0, 8.0, 50.5, 99.0}) {
    const Proportion found = wilson_proportion(successes, 101);
    for (const double bound : {found.low, found.high}) {
      const double offset = bound - found.rate;
      EXPECT_NEAR(offset * offset, kZ95 * kZ95 * bound * (1 - bound) / 101, 1e-12);
    }
    EXPECT_LT(found.low, found.rate);
    EXPECT_GT(found.high, found.rate);
  }
}

TEST(WilsonProportion, KnowsPublishedValues) {
  const Proportion found = wilson_proportion(8, 10);
  EXPECT_DOUBLE_EQ(found.rate, 0.8);
  EXPECT_NEAR(found.low, 0.4901625, 1e-6);
  EXPECT_NEAR(found.high, 0.9433178, 1e-6);
}

TEST(WilsonProportion, StaysInsideTheUnitInterval) {
  const Proportion none = wilson_proportion(0, 20);
  EXPECT_DOUBLE_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.1611252, 1e-6);
  const Proportion all = wilson_proportion(192, 192);
  EXPECT_NEAR(all.low, 0.9803849, 1e-6);
  EXPECT_DOUBLE_EQ(all.high, 1);
}

TEST(WilsonProportion, SaysNothingWithoutACount) {
  const Proportion found = wilson_proportion(0, 0);
  EXPECT_DOUBLE_EQ(found.rate, 0.5);
  EXPECT_DOUBLE_EQ(found.low, 0);
  EXPECT_DOUBLE_EQ(found.high, 1);
}

TEST(WilsonProportion, RefusesMoreSuccessesThanTries) {
  EXPECT_THROW(wilson_proportion(11, 10), Error);
  EXPECT_THROW(wilson_proportion(-1, 10), Error);
}

}  // namespace
}  // namespace prefusion
