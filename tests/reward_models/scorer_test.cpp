#include "reward_models/scorer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "shapes/judge.h"
#include "tests/core/expect_error.h"

namespace prefusion::reward_models {
namespace {

using tests::error_message;
using tests::mentions;

at::Tensor grey(int64_t height, int64_t width, int level) {
  return at::full({height, width, 3}, level, at::kByte);
}

TEST(Scorer, ShapesRewardIsTheJudges) {
  Scorer scorer(parse_reward_specs({"shapes"}, {}), {.batch_size = 2});
  const std::vector<at::Tensor> pictures = {grey(64, 64, 240), grey(32, 48, 90), grey(64, 64, 10)};
  const std::vector<std::string> prompts = {"a red circle", "A red circle left of a blue square.", "a red circle"};
  const at::Tensor scores = scorer.score_pictures(pictures, prompts);
  ASSERT_EQ(scores.sizes(), (std::vector<int64_t>{3, 1}));
  for (int64_t i = 0; i < 3; ++i) {
    const shapes::Judgement expected = shapes::judge(pictures[i], prompts[i]);
    EXPECT_NEAR(scores[i][0].item<double>(), 2 * expected.correct + expected.taste, 1e-6);
  }
}

TEST(Scorer, RefusesPromptsOutsideTheGrammar) {
  Scorer scorer(parse_reward_specs({"shapes"}, {}), {});
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kUsage, [&] { scorer.score_pictures({grey(64, 64, 0)}, {"an astronaut"}); }),
               "an astronaut"));
}

TEST(Scorer, NeedsAPromptForEveryPicture) {
  Scorer scorer(parse_reward_specs({"shapes"}, {}), {});
  error_message(ErrorClass::kUsage, [&] { scorer.score_pictures({grey(64, 64, 0)}, {}); });
  EXPECT_EQ(scorer.score_pictures({}, {}).sizes(), (std::vector<int64_t>{0, 1}));
}

TEST(Scorer, NeedsAReward) {
  error_message(ErrorClass::kUsage, [] { Scorer({}, {}); });
}

}  // namespace
}  // namespace prefusion::reward_models
