#include "training/curriculum.h"

#include <gtest/gtest.h>

#include "tests/core/expect_error.h"
#include "tests/training/fake_groups.h"
#include "training/hardness.h"

namespace prefusion::training {
namespace {

using tests::error_message;
using tests::FakeGroups;
using tests::mentions;

using Indices = std::vector<int64_t>;

TEST(Curriculum, IsParsed) {
  EXPECT_FALSE(Curriculum::parse("").is_on());
  EXPECT_EQ(Curriculum::parse("margin:6").num_chunks, 6);
  EXPECT_FALSE(Curriculum::parse("margin:6").min_gap.has_value());
  EXPECT_EQ(Curriculum::parse("margin:1:0.02").min_gap, 0.02);
  EXPECT_TRUE(Curriculum::parse("margin:1:0.02").is_on());
  for (const char* text :
       {"margin", "margin:", "margin:0", "margin:-1", "margin:2.5", "margin:2:", "margin:2:x", "margin:2:inf",
        "margin:2:0.1:3", "rank:2", "hardness", "hardness:1", "hardness:2:0", "hardness:2:1.5", "hardness:2:3:4"}) {
    EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { Curriculum::parse(text); }), "--curriculum"));
  }
}

TEST(Curriculum, ByHardnessIsParsed) {
  const Curriculum plain = Curriculum::parse("hardness:3");
  EXPECT_TRUE(plain.is_on() && plain.is_by_hardness());
  EXPECT_EQ(plain.num_chunks, 3);
  EXPECT_EQ(plain.num_timesteps, 4);
  EXPECT_FALSE(plain.min_gap.has_value());
  EXPECT_EQ(Curriculum::parse("hardness:3:7").num_timesteps, 7);
  EXPECT_FALSE(Curriculum::parse("margin:3").is_by_hardness());
}

TEST(Curriculum, HardnessIsTheMeanErrorOfTheBestMinusThatOfTheWorstItem) {
  EXPECT_NEAR(hardness_of({{0.25f, 0.5f}, {1.0f, 0.25f}, {0.5f, 0.75f}}), (-0.25 + 0.75 - 0.25) / 3, 1e-12);
  EXPECT_NEAR(hardness_of({{3.0f, 8.0f, 1.0f}}), 2, 1e-12);
}

TEST(Curriculum, CutsGroupsIntoEvenChunksLargestMarginFirst) {
  const std::vector<double> margins = margins_of(FakeGroups({0.1, 0.9, -0.3, 0.5, 0.4, 0.9, 0.2}));
  EXPECT_EQ(chunks_by_ease(margins, 1, "margin"), Indices(7, 0));
  EXPECT_EQ(chunks_by_ease(margins, 3, "margin"), (Indices{2, 0, 2, 0, 1, 0, 1}));
  EXPECT_EQ(chunks_by_ease(margins, 7, "margin"), (Indices{5, 0, 6, 2, 3, 1, 4}));
}

TEST(Curriculum, NeedsDifferentMarginsAndAGroupAChunk) {
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput,
                                     [] {
                                       chunks_by_ease({1, 1, 1}, 2, "margin");
                                     }),
                       "the same margin, 1"));
  error_message(ErrorClass::kUsage, [] { chunks_by_ease({1, 2, 3}, 4, "margin"); });
  EXPECT_EQ(chunks_by_ease({1, 1}, 1, "margin"), Indices(2, 0));
}

TEST(Curriculum, LeavesOutGroupsOfSmallMargin) {
  const FakeGroups groups({0.1, 0.02, -0.3, 0.5});
  EXPECT_EQ(groups_above_gap(groups, 0.02), (Indices{0, 3}));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { groups_above_gap(groups, 0.5); }), "0.5"));
}

}  // namespace
}  // namespace prefusion::training
