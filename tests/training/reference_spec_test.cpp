#include "training/reference_spec.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace prefusion::training {
namespace {

TEST(ReferenceSpec, ReadsEveryForm) {
  EXPECT_EQ(parse_reference("none").kind, ReferenceKind::kNone);
  EXPECT_EQ(parse_reference("frozen").kind, ReferenceKind::kFrozen);
  EXPECT_EQ(parse_reference("adapter-off").kind, ReferenceKind::kAdapterOff);
  EXPECT_EQ(parse_reference("cached").kind, ReferenceKind::kCached);
  EXPECT_DOUBLE_EQ(parse_reference("ema:0.995").decay, 0.995);
  EXPECT_EQ(parse_reference("refresh:40").every, 40);
  EXPECT_DOUBLE_EQ(parse_reference("refresh:40").mix, 1.0);
  EXPECT_DOUBLE_EQ(parse_reference("refresh:512:0.6").mix, 0.6);
  EXPECT_DOUBLE_EQ(parse_reference("extrapolated:-0.5").factor, -0.5);
}

TEST(ReferenceSpec, KnowsWhichReferencesMove) {
  for (const char* text : {"none", "frozen", "adapter-off", "cached"}) EXPECT_FALSE(parse_reference(text).moves());
  for (const char* text : {"ema:0.9", "refresh:1", "extrapolated:0.5"}) EXPECT_TRUE(parse_reference(text).moves());
}

TEST(ReferenceSpec, OtherTextsAreUsageErrors) {
  for (const char* text : {"", "Frozen", "ema", "ema:", "ema:1", "ema:-0.1", "ema:x", "ema:0.9:1", "refresh",
                           "refresh:0", "refresh:2.5", "refresh:4:0", "refresh:4:1.5", "refresh:4:1:1",
                           "extrapolated:1", "extrapolated:-2", "extrapolated:nan", "cached:2", "frozen:"}) {
    try {
      parse_reference(text);
      ADD_FAILURE() << text << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 2) << text;
      EXPECT_NE(std::string(error.what()).find(concat("--reference ", text)), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace prefusion::training
