#include "reward_models/scorer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "shapes/judge.h"
#include "tests/core/expect_error.h"

namespace prefusion::reward_models {
namespace {

using tests::error_message;
using tests::mentions;

// A tower that gives the mean of a picture, [N, 1].
class MeanTower : public PictureTower {
 public:
  const std::string& key() const override { return key_; }
  const std::string& preparation_key() const override { return key_; }
  at::Tensor prepare(const images::Picture& picture) const override {
    return picture.pixels.to(at::kFloat).mean().unsqueeze(0);
  }
  at::Tensor features(const std::vector<at::Tensor>& prepared) override { return at::stack(prepared); }

 private:
  std::string key_ = "mean";
};

// `scale` times the length of the prompt; writes down the prompts it encodes.
class LengthReward : public RewardModel {
 public:
  LengthReward(std::string prompt_key, double scale, std::vector<std::string>& encoded)
      : prompt_key_(std::move(prompt_key)), scale_(scale), encoded_(encoded) {}

  const std::shared_ptr<PictureTower>& tower() const override { return tower_; }
  std::string prompt_key() const override { return prompt_key_; }
  at::Tensor prompt_features(const std::vector<std::string>& prompts) override {
    at::Tensor features = at::empty({static_cast<int64_t>(prompts.size()), 1});
    for (size_t i = 0; i < prompts.size(); ++i) {
      encoded_.push_back(prompts[i]);
      features[static_cast<int64_t>(i)] = static_cast<double>(prompts[i].size());
    }
    return features;
  }
  at::Tensor score(const at::Tensor&, const at::Tensor& prompt_features) override {
    return prompt_features.squeeze(1) * scale_;
  }

 private:
  std::shared_ptr<PictureTower> tower_ = std::make_shared<MeanTower>();
  std::string prompt_key_;
  double scale_;
  std::vector<std::string>& encoded_;
};

// Two rewards with these keys of their prompts, and what each encoded.
struct TwoRewards {
  TwoRewards(const std::string& first_key, const std::string& second_key)
      : scorer(
            [&] {
              std::vector<NamedReward> rewards;
              rewards.push_back({"one", std::make_unique<LengthReward>(first_key, 1, first)});
              rewards.push_back({"ten", std::make_unique<LengthReward>(second_key, 10, second)});
              return rewards;
            }(),
            {.batch_size = 2}) {}

  at::Tensor score(const std::vector<std::string>& prompts) {
    return scorer.score_pictures(std::vector<at::Tensor>(prompts.size(), at::zeros({4, 4, 3}, at::kByte)), prompts);
  }

  std::vector<std::string> first;
  std::vector<std::string> second;
  Scorer scorer;
};

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

TEST(Scorer, EncodesAPromptOnceForAllRewardsThatSeeItAlike) {
  TwoRewards rewards("same", "same");
  const at::Tensor scores = rewards.score({"abc", "a", "abc", "abc", "ab"});
  EXPECT_TRUE(at::equal(scores.select(1, 0), at::tensor({3.0, 1.0, 3.0, 3.0, 2.0}, at::kDouble)));
  EXPECT_TRUE(at::equal(scores.select(1, 1), scores.select(1, 0) * 10));
  EXPECT_EQ(rewards.first, (std::vector<std::string>{"abc", "a", "ab"}));
  EXPECT_TRUE(rewards.second.empty());
}

TEST(Scorer, EncodesAPromptForEachRewardThatSeesItInItsOwnWay) {
  for (const std::string& key : {std::string("other"), std::string()}) {
    TwoRewards rewards(key.empty() ? key : "same", key);  // two without a key are two as well
    rewards.score({"abc", "a", "abc"});
    EXPECT_EQ(rewards.first, (std::vector<std::string>{"abc", "a"}));
    EXPECT_EQ(rewards.second, rewards.first);
  }
}

TEST(Scorer, ForgetsSharedPromptsToo) {
  TwoRewards rewards("same", "same");
  rewards.score({"abc"});
  rewards.score({"abc"});
  EXPECT_EQ(rewards.first.size(), 1u);
  rewards.scorer.forget_prompts();
  rewards.score({"abc"});
  EXPECT_EQ(rewards.first.size(), 2u);
  EXPECT_TRUE(rewards.second.empty());
}

TEST(Scorer, NeedsAReward) {
  error_message(ErrorClass::kUsage, [] { Scorer(std::vector<RewardSpec>(), {}); });
}

}  // namespace
}  // namespace prefusion::reward_models
