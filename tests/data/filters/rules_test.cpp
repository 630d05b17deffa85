#include <gtest/gtest.h>

#include <cmath>

#include "data/filters/margin.h"
#include "data/filters/prompt_rules.h"
#include "tests/core/expect_error.h"
#include "tests/data/filters/make_groups.h"

namespace prefusion::data::filters {
namespace {

using tests::error_message;
using tests::GroupSetMaker;
using tests::kept_by;
using tests::mentions;
using Indices = std::vector<int64_t>;

TEST(Margin, IsOfTheBestAndTheWorstByTheLabel) {
  GroupSetMaker maker({"pick"});
  maker.add("p", {0, 1}, {{1.5}, {4}}).add("p", {3, 1, 2}, {{5}, {9}, {7}}).add("p", {0.5, 0.5}, {{1}, {2}});
  EXPECT_EQ(margin(maker.set().groups[0], 0), 2.5);
  EXPECT_EQ(margin(maker.set().groups[0], std::nullopt), 1);
  EXPECT_EQ(margin(maker.set().groups[1], 0), -4);
  EXPECT_TRUE(std::isnan(margin(maker.set().groups[2], 0)));
}

TEST(Margin, BoundsTakeGroupsOut) {
  GroupSetMaker maker({"pick"});
  maker.add("p", {0, 1}, {{1}, {4}}).add("p", {1, 0}, {{1}, {4}}).add("p", {1, 0}, {{kMissing}, {4}});
  EXPECT_EQ(kept_by(maker.set(), min_margin_rule(maker.set(), {"pick", 3})), (Indices{0}));
  EXPECT_EQ(kept_by(maker.set(), max_margin_rule(maker.set(), {"pick", 2.9})), (Indices{1}));
  EXPECT_EQ(kept_by(maker.set(), min_margin_rule(maker.set(), {"", 1})), (Indices{0, 1, 2}));
}

TEST(Margin, BoundsAreANumberOrOneOfANamedScore) {
  EXPECT_EQ(parse_margin_bound("pick=-0.5").score, "pick");
  EXPECT_EQ(parse_margin_bound("pick=-0.5").value, -0.5);
  EXPECT_EQ(parse_margin_bound("2").score, "");
  for (const char* text : {"", "pick=", "=3", "pick=3x", "nan"}) {
    EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { parse_margin_bound(text); }), "is no bound")) << text;
  }
  GroupSetMaker maker({"pick", "taste"});
  maker.add("p", {0, 1}, {{1, 1}, {4, 2}});
  const auto message = error_message(ErrorClass::kInput, [&] { min_margin_rule(maker.set(), {"clip", 1}); });
  EXPECT_TRUE(mentions(message, "no score 'clip'; found: pick, taste"));
}

TEST(Agreement, IsTheShareOfPairsInTheLabelsOrder) {
  GroupSetMaker maker({"pick"});
  maker.add("p", {3, 2, 1}, {{9}, {1}, {1}}).add("p", {1, 0}, {{2}, {2}}).add("p", {1, 1}, {{2}, {5}});
  EXPECT_DOUBLE_EQ(agreement(maker.set().groups[0], 0), 2.5 / 3);
  EXPECT_EQ(agreement(maker.set().groups[1], 0), 0.5);
  EXPECT_EQ(agreement(maker.set().groups[2], 0), 1);
}

TEST(Agreement, MustHoldForEveryScore) {
  GroupSetMaker maker({"clip", "pick"});
  maker.add("p", {1, 0}, {{2, 3}, {1, 1}}).add("p", {1, 0}, {{2, 0}, {1, 1}}).add("p", {1, 0}, {{2, kMissing}, {1, 1}});
  EXPECT_EQ(kept_by(maker.set(), agreement_rule(maker.set(), {"clip", "pick"}, 1)), (Indices{0}));
  EXPECT_EQ(kept_by(maker.set(), agreement_rule(maker.set(), {"clip"}, 1)), (Indices{0, 1, 2}));
}

// Margins 3, -1, -5: their root mean square is sqrt(35 / 3) = 3.416.
class Flips : public testing::Test {
 protected:
  Flips() : maker_({"pick"}) {
    maker_.add("p", {1, 0}, {{3}, {0}}).add("p", {1, 0}, {{0}, {1}}).add("p", {0, 1}, {{5}, {0}});
  }
  GroupSetMaker maker_;
};

TEST_F(Flips, AreWhatIsContradictedStrongly) {
  EXPECT_NEAR(margin_scale(maker_.set(), 0), std::sqrt(35.0 / 3), 1e-12);
  EXPECT_EQ(kept_by(maker_.set(), drop_flips_rule(maker_.set(), {"pick"}, 1)), (Indices{0, 1}));
  EXPECT_EQ(kept_by(maker_.set(), drop_flips_rule(maker_.set(), {"pick"}, 0)), (Indices{0}));
  EXPECT_EQ(kept_by(maker_.set(), drop_flips_rule(maker_.set(), {"pick"}, 2)), (Indices{0, 1, 2}));
}

TEST_F(Flips, AreRelabelled) {
  const Indices all = {0, 1, 2};
  EXPECT_EQ(relabel_flips(maker_.set(), all, {"pick"}, 1), (Indices{2}));
  EXPECT_EQ(maker_.set().groups[2].items[0].label, 1);
  EXPECT_EQ(maker_.set().groups[2].items[0].rank, 0);
  EXPECT_EQ(margin(maker_.set().groups[2], 0), 5);
}

TEST(LabelFlips, NeedEveryScoreToContradict) {
  GroupSetMaker maker({"clip", "pick"});
  maker.add("p", {1, 0}, {{0, 9}, {5, 0}}).add("p", {1, 0}, {{0, 0}, {5, 9}});
  EXPECT_EQ(kept_by(maker.set(), drop_flips_rule(maker.set(), {"clip", "pick"}, 0)), (Indices{0}));
}

TEST(TextQuality, IsTheProductOfLengthLettersAndVariety) {
  EXPECT_DOUBLE_EQ(text_quality("a red circle on blue"), 1);
  EXPECT_DOUBLE_EQ(text_quality("cat"), 0.2);
  EXPECT_DOUBLE_EQ(text_quality("a cat a cat a"), 0.4);                     // 2 of 5 words are distinct
  EXPECT_DOUBLE_EQ(text_quality("one two ((three)) four five"), 23. / 27);  // 4 of 27 characters are brackets
  EXPECT_EQ(text_quality("  "), 0);
  std::string words;
  for (int i = 0; i < 120; ++i) words += "w" + std::to_string(i) + " ";
  EXPECT_DOUBLE_EQ(text_quality(words), 0.5);
  EXPECT_DOUBLE_EQ(text_quality("Ein r\xC3\xB6tlicher Kreis \xC3\xBC"
                                "ber Blau"),
                   1);
}

TEST(PromptRules, MatchExpressionsAnywhere) {
  GroupSetMaker maker;
  maker.add("a Red circle", {1, 0}).add("a blue square", {1, 0}).add("", {1, 0});
  EXPECT_EQ(kept_by(maker.set(), include_rule("(?i)\\bred\\b")), (Indices{0}));
  EXPECT_EQ(kept_by(maker.set(), exclude_rule("square$")), (Indices{0, 2}));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [] { include_rule("(red"); }), "regular expression"));
}

TEST(PromptRules, RequirementsAreOfColumnsOrOfEveryPicture) {
  GroupSetMaker maker({"nsfw"}, {"quality"});
  maker.add("p", {1, 0}, {{0.1}, {0.2}}, {7}).add("p", {1, 0}, {{0.1}, {0.9}}, {3});
  maker.add("p", {1, 0}, {{0.1}, {0.1}}, {kMissing});
  const auto kept = [&](const char* text) {
    return kept_by(maker.set(), require_rule(maker.set(), parse_requirement(text)));
  };
  EXPECT_EQ(kept("nsfw<=0.5"), (Indices{0, 2}));
  EXPECT_EQ(kept("quality > 3"), (Indices{0}));
  EXPECT_EQ(kept("quality>=3"), (Indices{0, 1}));
  EXPECT_EQ(kept("quality!=3"), (Indices{0}));
  EXPECT_EQ(kept("quality==3"), (Indices{1}));
  EXPECT_EQ(kept("quality<7"), (Indices{1}));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { kept("nfsw<1"); }), "no column 'nfsw'"));
  for (const char* text : {"quality", "quality=3", "<=3", "quality<=", "quality<=x"}) {
    EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { kept(text); }), "is no requirement")) << text;
  }
}

TEST(PromptRules, CapKeepsTheBestOfAPrompt) {
  GroupSetMaker maker;
  maker.add("p", {1, 0}).add("q", {1, 0}).add("p", {1, 0}).add("p", {1, 0});
  EXPECT_EQ(kept_by(maker.set(), per_prompt_rule(2, {1, 0, 3, 2})), (Indices{1, 2, 3}));
  EXPECT_EQ(kept_by(maker.set(), per_prompt_rule(1, {0, 0, 0, 0})), (Indices{0, 1}));
}

}  // namespace
}  // namespace prefusion::data::filters
