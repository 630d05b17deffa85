#include "shapes/judge.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"
#include "shapes/scene.h"

namespace prefusion::shapes {
namespace {

at::Tensor circle(Colour colour, int background) {
  return render({.objects = {{.colour = colour}}, .background = background});
}

TEST(ShapesJudge, PutsCorrectnessBeforeTaste) {
  const at::Tensor correct = circle(Colour::kRed, 150), pleasing = circle(Colour::kBlue, 250);
  EXPECT_EQ(compare(correct, pleasing, "a red circle"), Verdict::kFirst);
  EXPECT_EQ(compare(pleasing, correct, "a red circle"), Verdict::kSecond);
  EXPECT_EQ(compare(correct, pleasing, "a blue circle"), Verdict::kSecond);
}

TEST(ShapesJudge, LetsTasteDecideBetweenEquallyCorrectPictures) {
  const at::Tensor dark = circle(Colour::kRed, 150), light = circle(Colour::kRed, 250);
  EXPECT_EQ(compare(light, dark, "a red circle"), Verdict::kFirst);
  EXPECT_EQ(compare(dark, light, "a green square"), Verdict::kSecond);  // both wrong
}

TEST(ShapesJudge, CallsSmallDifferencesTies) {
  const at::Tensor a = circle(Colour::kRed, 220), b = circle(Colour::kRed, 224);
  EXPECT_EQ(compare(a, b, "a red circle", 0.05), Verdict::kTie);
  EXPECT_EQ(compare(a, b, "a red circle", 0.001), Verdict::kSecond);
  EXPECT_EQ(compare(a, a, "a red circle", 0), Verdict::kTie);
  EXPECT_THROW(compare(a, b, "a red circle", -0.1), Error);
}

TEST(ShapesJudge, MarginIsReachedByTheMarginItself) {
  EXPECT_EQ(compare(Judgement{true, 0.75}, Judgement{true, 0.5}, 0.25), Verdict::kFirst);
  EXPECT_EQ(compare(Judgement{true, 0.5}, Judgement{true, 0.75}, 0.25), Verdict::kSecond);
  EXPECT_EQ(compare(Judgement{true, 0.5}, Judgement{true, 0.75}, 0.26), Verdict::kTie);
}

TEST(ShapesWinRate, CountsTiesAsHalf) {
  std::vector<Verdict> verdicts(6, Verdict::kFirst);
  verdicts.insert(verdicts.end(), 2, Verdict::kSecond);
  verdicts.insert(verdicts.end(), 4, Verdict::kTie);
  const WinRate result = win_rate(verdicts);
  EXPECT_EQ(result.wins, 6);
  EXPECT_EQ(result.losses, 2);
  EXPECT_EQ(result.ties, 4);
  EXPECT_DOUBLE_EQ(result.rate, 8.0 / 12);
  EXPECT_LT(result.low, result.rate);
  EXPECT_GT(result.high, result.rate);
}

TEST(ShapesWinRate, KnowsNothingWithoutVerdicts) {
  const WinRate result = win_rate({});
  EXPECT_DOUBLE_EQ(result.rate, 0.5);
  EXPECT_DOUBLE_EQ(result.low, 0);
  EXPECT_DOUBLE_EQ(result.high, 1);
}

}  // namespace
}  // namespace prefusion::shapes
