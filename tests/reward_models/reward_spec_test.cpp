#include "reward_models/reward_spec.h"

#include <gtest/gtest.h>

#include "tests/core/expect_error.h"

namespace prefusion::reward_models {
namespace {

using tests::error_message;
using tests::mentions;

TEST(RewardSpec, SplitsKindNameAndPath) {
  const RewardSpec plain = parse_reward_spec("pickscore=/models/a=b");
  EXPECT_EQ(plain.column, "pickscore");
  EXPECT_EQ(plain.kind, "pickscore");
  EXPECT_EQ(plain.path, "/models/a=b");
  const RewardSpec named = parse_reward_spec("clip/b32=/models/b32");
  EXPECT_EQ(named.column, "clip/b32");
  EXPECT_EQ(named.kind, "clip");
  EXPECT_EQ(parse_reward_spec("shapes").path, "");
}

TEST(RewardSpec, RefusesEmptyParts) {
  error_message(ErrorClass::kUsage, [] { parse_reward_spec("=path"); });
  error_message(ErrorClass::kUsage, [] { parse_reward_spec("clip="); });
  error_message(ErrorClass::kUsage, [] { parse_reward_spec(""); });
}

TEST(RewardSpec, ArgumentsGoToTheirColumn) {
  const auto specs = parse_reward_specs({"clip/a=x", "clip/b=y"}, {"clip/b.scale=2.5", "clip/b.prefix=a.b=c"});
  EXPECT_TRUE(specs[0].options.empty());
  EXPECT_EQ(specs[1].options.at("scale"), "2.5");
  EXPECT_EQ(specs[1].options.at("prefix"), "a.b=c");
}

TEST(RewardSpec, RefusesRepeatedColumnsAndForeignArguments) {
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage,
                                     [] {
                                       parse_reward_specs({"clip=x", "clip=y"}, {});
                                     }),
                       "clip/NAME"));
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kUsage, [] { parse_reward_specs({"clip=x"}, {"hpsv2.a=b"}); }), "hpsv2"));
  error_message(ErrorClass::kUsage, [] { parse_reward_specs({"clip=x"}, {"clip.scale"}); });
}

TEST(RewardOptions, RefuseWhatNobodyAskedFor) {
  RewardSpec spec = parse_reward_spec("clip=x");
  spec.options = {{"scale", "2"}, {"colour", "red"}};
  RewardOptions options(spec);
  EXPECT_EQ(options.number("scale", 1), 2);
  EXPECT_EQ(options.number("bias", 7), 7);
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { options.finish(); }), "colour"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage,
                                     [&] {
                                       options.choice("colour", {"blue", "green"});
                                     }),
                       "blue"));
}

TEST(RewardOptions, NumbersMustBeNumbers) {
  RewardSpec spec = parse_reward_spec("clip=x");
  spec.options = {{"scale", "2x"}};
  error_message(ErrorClass::kUsage, [&] { RewardOptions(spec).number("scale", 1); });
}

}  // namespace
}  // namespace prefusion::reward_models
