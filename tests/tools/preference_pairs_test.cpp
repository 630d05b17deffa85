#include "tools/preference_pairs.h"

#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "shapes/caption.h"

namespace prefusion::tools {
namespace {

using shapes::Judgement;

CounterRng rng_of(uint64_t seed) {
  return CounterRng({.seed = seed}, RandomPurpose::kShuffle);
}

std::vector<Judgement> random_judgements(size_t count, uint64_t seed) {
  CounterRng rng({.seed = seed}, RandomPurpose::kOther);
  std::vector<Judgement> pictures(count);
  for (auto& picture : pictures) picture = {.correct = rng.uniform() < 0.5, .taste = rng.uniform()};
  return pictures;
}

TEST(PairUp, LabelNamesTheBetterPicture) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto pictures = random_judgements(6, seed);
    CounterRng rng = rng_of(seed);
    for (const PicturePair& pair : pair_up(pictures, PairRule::kJudge, 0.05, rng)) {
      const shapes::Verdict verdict = shapes::compare(pictures[pair.first], pictures[pair.second], 0.05);
      const double expected = verdict == shapes::Verdict::kFirst ? 1 : (verdict == shapes::Verdict::kSecond ? 0 : 0.5);
      EXPECT_EQ(pair.label_0, expected);
    }
  }
}

TEST(PairUp, UsesEveryPictureOnceAndMixesRightWithWrong) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const auto pictures = random_judgements(8, seed);
    size_t right = 0, mixed = 0;
    for (const auto& picture : pictures) right += picture.correct;
    CounterRng rng = rng_of(seed);
    std::set<size_t> used;
    for (const PicturePair& pair : pair_up(pictures, PairRule::kJudge, 0.05, rng)) {
      EXPECT_TRUE(used.insert(pair.first).second);
      EXPECT_TRUE(used.insert(pair.second).second);
      mixed += pictures[pair.first].correct != pictures[pair.second].correct;
    }
    EXPECT_EQ(mixed, std::min(right, pictures.size() - right));
  }
}

TEST(PairUp, TheBetterPictureComesFirstHalfTheTime) {
  int first = 0, decided = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const auto pictures = random_judgements(6, seed);
    CounterRng rng = rng_of(seed);
    for (const PicturePair& pair : pair_up(pictures, PairRule::kJudge, 0.05, rng)) {
      first += pair.label_0 == 1;
      decided += pair.label_0 != 0.5;
    }
  }
  ASSERT_GT(decided, 1000);
  EXPECT_NEAR(static_cast<double>(first) / decided, 0.5, 0.05);
}

TEST(PairUp, PicturesUnderTheMarginTie) {
  const std::vector<Judgement> alike = {{.correct = true, .taste = 0.70}, {.correct = true, .taste = 0.72}};
  CounterRng rng = rng_of(0);
  const auto pairs = pair_up(alike, PairRule::kJudge, 0.05, rng);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].label_0, 0.5);
}

TEST(PairUp, TasteRuleIgnoresCorrectness) {
  const std::vector<Judgement> pictures = {{.correct = true, .taste = 0.2}, {.correct = false, .taste = 0.9}};
  CounterRng rng = rng_of(0);
  const auto pairs = pair_up(pictures, PairRule::kTaste, 0.05, rng);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].label_0, pairs[0].first == 1 ? 1 : 0);
}

TEST(PairUp, IsAFunctionOfTheSeed) {
  const auto pictures = random_judgements(8, 5);
  const auto places = [&](uint64_t seed) {
    CounterRng rng = rng_of(seed);
    std::vector<size_t> out;
    for (const PicturePair& pair : pair_up(pictures, PairRule::kJudge, 0.05, rng)) {
      out.insert(out.end(), {pair.first, pair.second});
    }
    return out;
  };
  EXPECT_EQ(places(3), places(3));
  EXPECT_NE(places(3), places(4));
}

TEST(TrainingCaptions, AreNeverHeldOut) {
  const auto captions = training_captions(3000, 0);
  ASSERT_EQ(captions.size(), 3000u);
  std::set<std::string> held_out;
  for (const auto& caption : shapes::held_out_captions(2000, 0)) {
    if (shapes::is_held_out(caption)) held_out.insert(caption);
  }
  ASSERT_GT(held_out.size(), 50u);
  for (const auto& caption : captions) EXPECT_FALSE(held_out.contains(caption)) << caption;
}

TEST(TrainingCaptions, ALongerListBeginsWithTheShorterOne) {
  const auto shorter = training_captions(50, 9), longer = training_captions(100, 9);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
  EXPECT_NE(shorter, training_captions(50, 10));
}

TEST(PairRuleName, IsCheckedByName) {
  EXPECT_EQ(parse_pair_rule("judge"), PairRule::kJudge);
  EXPECT_EQ(parse_pair_rule("taste"), PairRule::kTaste);
  EXPECT_THROW(parse_pair_rule("luck"), Error);
}

}  // namespace
}  // namespace prefusion::tools
