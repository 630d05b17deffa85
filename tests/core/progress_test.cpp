#include "core/progress.h"

#include <gtest/gtest.h>

#include <cmath>

namespace prefusion {
namespace {

TEST(DurationText, ShowsTheTwoLargestUnits) {
  EXPECT_EQ(duration_text(0), "0s");
  EXPECT_EQ(duration_text(12.4), "12s");
  EXPECT_EQ(duration_text(59.6), "1m00s");
  EXPECT_EQ(duration_text(200), "3m20s");
  EXPECT_EQ(duration_text(3599.7), "1h00m");
  EXPECT_EQ(duration_text(3720), "1h02m");
  EXPECT_EQ(duration_text(360000), "100h00m");
}

TEST(DurationText, HasAPlaceholderForWhatIsNoDuration) {
  EXPECT_EQ(duration_text(-1), "?");
  EXPECT_EQ(duration_text(NAN), "?");
  EXPECT_EQ(duration_text(INFINITY), "?");
}

}  // namespace
}  // namespace prefusion
