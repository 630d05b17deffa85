#include "training/lr_schedule.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace prefusion::training {
namespace {

TEST(LrSchedule, UnknownNameIsAUsageErrorWithTheKnownOnes) {
  try {
    parse_lr_schedule("polynomial");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    EXPECT_NE(std::string(error.what()).find("constant, linear or cosine"), std::string::npos);
  }
}

TEST(LrSchedule, RisesThenFalls) {
  EXPECT_DOUBLE_EQ(lr_factor(LrScheduleKind::kLinear, 0, 4, 12), 0.0);
  EXPECT_DOUBLE_EQ(lr_factor(LrScheduleKind::kLinear, 2, 4, 12), 0.5);
  EXPECT_DOUBLE_EQ(lr_factor(LrScheduleKind::kLinear, 4, 4, 12), 1.0);
  EXPECT_DOUBLE_EQ(lr_factor(LrScheduleKind::kLinear, 8, 4, 12), 0.5);
  EXPECT_DOUBLE_EQ(lr_factor(LrScheduleKind::kLinear, 13, 4, 12), 0.0);
  EXPECT_DOUBLE_EQ(lr_factor(LrScheduleKind::kConstant, 1000, 4, 12), 1.0);
}

}  // namespace
}  // namespace prefusion::training
