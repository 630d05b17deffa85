#include "shapes/caption.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

namespace prefusion::shapes {
namespace {

TEST(ShapesCaption, ReadsOneObject) {
  const auto parsed = parse_caption("a red circle");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(*parsed, (ParsedCaption{{{Colour::kRed, Shape::kCircle}}, Relation::kNone}));
}

TEST(ShapesCaption, ReadsTwoObjectsAndTheirRelation) {
  const auto parsed = parse_caption("  A cyan triangle RIGHT of a purple square. ");
  ASSERT_TRUE(parsed.has_value());
  const ParsedCaption expected{{{Colour::kCyan, Shape::kTriangle}, {Colour::kPurple, Shape::kSquare}},
                               Relation::kRightOf};
  EXPECT_EQ(*parsed, expected);
}

TEST(ShapesCaption, RefusesTextOutsideTheGrammar) {
  for (const char* text :
       {"", ".", "a", "a red", "red circle", "a circle red", "a red circle left of", "a red circle left a blue square",
        "a red circle a blue square", "a red circle above a blue square above a red circle", "a pink circle",
        "a red circle beside a blue square", "the red circle", "a red circle above a blue square please"}) {
    EXPECT_FALSE(parse_caption(text).has_value()) << text;
  }
}

TEST(ShapesCaption, ComesBackFromItsText) {
  EXPECT_EQ(one_object_captions().size(), 18u);
  EXPECT_EQ(two_object_captions().size(), 1224u);
  std::set<std::string> seen;
  for (const auto& all : {one_object_captions(), two_object_captions()}) {
    for (const ParsedCaption& parsed : all) {
      const std::string text = caption_text(parsed);
      EXPECT_TRUE(seen.insert(text).second) << text;
      EXPECT_EQ(parse_caption(text), parsed) << text;
    }
  }
}

TEST(ShapesCaption, VocabularyHoldsTheWordsOfEveryCaptionAndNoOther) {
  std::set<std::string> words;
  for (const ParsedCaption& parsed : two_object_captions()) {
    std::istringstream stream(caption_text(parsed));
    for (std::string word; stream >> word;) words.insert(word);
  }
  const std::vector<std::string> vocabulary = shapes::vocabulary();
  EXPECT_EQ(vocabulary.size(), 15u);
  EXPECT_EQ(std::set<std::string>(vocabulary.begin(), vocabulary.end()), words);
}

TEST(ShapesHeldOut, IsAboutATenthOfTheTwoObjectCaptionsAndNoneOfTheOthers) {
  int held_out = 0;
  for (const ParsedCaption& parsed : two_object_captions()) held_out += is_held_out(parsed) ? 1 : 0;
  EXPECT_GE(held_out, 1224 * 7 / 100);
  EXPECT_LE(held_out, 1224 * 13 / 100);
  for (const ParsedCaption& parsed : one_object_captions()) EXPECT_FALSE(is_held_out(parsed));
  EXPECT_FALSE(is_held_out("a castle in the clouds"));
}

TEST(ShapesHeldOut, TreatsACaptionAndItsMirrorAlike) {
  for (const ParsedCaption& parsed : two_object_captions()) {
    const ParsedCaption mirror{{parsed.objects[1], parsed.objects[0]}, opposite(parsed.relation)};
    EXPECT_EQ(is_held_out(parsed), is_held_out(mirror)) << caption_text(parsed);
    EXPECT_EQ(is_held_out(parsed), is_held_out(caption_text(parsed)));
  }
}

// The split is part of the bundled model: when it moves, captions the model was trained on become "unseen".
TEST(ShapesHeldOut, StaysWhatItWasWhenTheBundledModelWasTrained) {
  std::map<bool, int64_t> position_sums;
  int64_t position = 0;
  for (const ParsedCaption& parsed : two_object_captions()) position_sums[is_held_out(parsed)] += position++;
  EXPECT_EQ(position_sums[true] + position_sums[false], 1224 * 1223 / 2);
  EXPECT_EQ(position_sums[true], 75667);
}

TEST(ShapesHeldOut, ListMixesThreeInTenSimpleCaptionsWithUnseenOnes) {
  const std::vector<std::string> captions = held_out_captions(100, 7);
  ASSERT_EQ(captions.size(), 100u);
  int simple = 0;
  for (const std::string& text : captions) {
    const auto parsed = parse_caption(text);
    ASSERT_TRUE(parsed.has_value()) << text;
    if (parsed->objects.size() == 1) {
      ++simple;
    } else {
      EXPECT_TRUE(is_held_out(text)) << text;
    }
  }
  EXPECT_EQ(simple, 30);
  EXPECT_EQ(std::set<std::string>(captions.begin(), captions.begin() + 60).size(), 60u);
}

TEST(ShapesHeldOut, ListDependsOnTheSeedAndBeginsWithTheShorterOne) {
  const std::vector<std::string> longer = held_out_captions(500, 3);
  const std::vector<std::string> shorter = held_out_captions(40, 3);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
  EXPECT_NE(shorter, held_out_captions(40, 4));
  EXPECT_TRUE(held_out_captions(0, 3).empty());
}

TEST(ShapesHeldOut, NeverOccursInTraining) {
  CounterRng rng(DrawKey{5, 0, 0}, RandomPurpose::kScene);
  int simple = 0;
  std::set<std::string> seen;
  for (int i = 0; i < 20000; ++i) {
    const ParsedCaption parsed = sample_caption(rng);
    EXPECT_FALSE(is_held_out(parsed));
    simple += parsed.objects.size() == 1 ? 1 : 0;
    seen.insert(caption_text(parsed));
  }
  EXPECT_NEAR(simple / 20000.0, 0.3, 0.015);
  int trainable = 18;
  for (const ParsedCaption& parsed : two_object_captions()) trainable += is_held_out(parsed) ? 0 : 1;
  EXPECT_EQ(static_cast<int>(seen.size()), trainable);
}

}  // namespace
}  // namespace prefusion::shapes
