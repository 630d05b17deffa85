#include "training/evaluate_pairs.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "shapes/scene.h"

namespace prefusion::training {
namespace {

JudgedPair judged(const PictureJudge& judge, const std::string& prompt, std::vector<double> baseline,
                  std::vector<double> model) {
  JudgedPair pair{.prompt = prompt, .seed = 1, .baseline = std::move(baseline), .model = std::move(model)};
  pair.verdict = judge.compare(pair.model, pair.baseline);
  pair.advantage = judge.advantage(pair.model, pair.baseline);
  return pair;
}

// correct, taste, background, edge_cleanliness, stray_blobs
std::vector<double> scores(bool correct, double taste) {
  return {correct ? 1.0 : 0.0, taste, 200, 0.5, 1};
}

constexpr const char* kOne = "a red circle";
constexpr const char* kTwo = "a red circle left of a blue square";

class EvaluatePairs : public testing::Test {
 protected:
  std::unique_ptr<PictureJudge> judge = make_shapes_judge();
  std::vector<JudgedPair> pairs = {
      judged(*judge, kOne, scores(true, 0.5), scores(true, 0.8)),    // taste won
      judged(*judge, kTwo, scores(false, 0.9), scores(true, 0.2)),   // correctness won over taste
      judged(*judge, kTwo, scores(true, 0.5), scores(false, 0.9)),   // lost
      judged(*judge, kTwo, scores(false, 0.5), scores(false, 0.52))  // under the margin
  };
};

TEST_F(EvaluatePairs, TheModelIsTheContestant) {
  const EvaluationSummary summary = summarize(pairs, *judge);
  EXPECT_EQ(summary.win_rate.wins, 2);
  EXPECT_EQ(summary.win_rate.losses, 1);
  EXPECT_EQ(summary.win_rate.ties, 1);
  EXPECT_NEAR(summary.win_rate.rate, 2.5 / 4, 1e-12);
  EXPECT_EQ(pairs[0].verdict, shapes::Verdict::kFirst);
}

TEST_F(EvaluatePairs, DifferencesAreModelMinusBaseline) {
  const EvaluationSummary summary = summarize(pairs, *judge);
  EXPECT_EQ(summary.num_pairs, 4);
  EXPECT_EQ(summary.num_prompts, 2);
  const AxisSummary& correct = summary.axes.at(0);
  EXPECT_EQ(correct.name, "correct");
  EXPECT_EQ(correct.shares->gained, 1);
  EXPECT_EQ(correct.shares->lost, 1);
  const AxisSummary& taste = summary.axes.at(1);
  EXPECT_NEAR(taste.baseline.value, 0.6, 1e-12);
  EXPECT_NEAR(taste.model.value, 0.605, 1e-12);
  EXPECT_NEAR(taste.difference.value, 0.005, 1e-12);
  EXPECT_FALSE(taste.shares.has_value());
}

TEST_F(EvaluatePairs, CorrectnessIsBrokenDownByKindOfPrompt) {
  const EvaluationSummary summary = summarize(pairs, *judge);
  ASSERT_EQ(summary.kinds.size(), 2u);
  EXPECT_EQ(summary.kinds[0].name, "one object");
  EXPECT_EQ(summary.kinds[0].count, 1);
  EXPECT_EQ(summary.kinds[1].count, 3);
  EXPECT_NEAR(summary.kinds[1].baseline.value, 1.0 / 3, 1e-12);
}

TEST_F(EvaluatePairs, AdvantageAgreesWithTheVerdict) {
  EXPECT_GT(pairs[1].advantage, pairs[0].advantage);  // correctness outweighs taste
  EXPECT_GT(pairs[0].advantage, 0);
  EXPECT_LT(pairs[2].advantage, 0);
}

TEST_F(EvaluatePairs, TableAndJsonSayTheSame) {
  const EvaluationSummary summary = summarize(pairs, *judge);
  const std::string table = summary_table(summary);
  EXPECT_NE(table.find("win rate 62.5 %"), std::string::npos) << table;
  EXPECT_NE(table.find("two objects (3)"), std::string::npos) << table;
  EXPECT_NE(table.find("1 gained, 1 lost"), std::string::npos) << table;
  const auto json = summary_json(summary);
  EXPECT_EQ(json["win_rate"]["wins"], 2);
  EXPECT_EQ(json["axes"][0]["gained"], 1);
  EXPECT_NEAR(json["axes"][1]["difference"]["value"].get<double>(), 0.005, 1e-12);
  EXPECT_EQ(pair_json(pairs[2], judge->axes())["verdict"], "baseline");
  EXPECT_EQ(pair_json(pairs[3], judge->axes())["verdict"], "tie");
  EXPECT_EQ(pair_json(pairs[0], judge->axes())["model"]["taste"], 0.8);
}

TEST(ShapesJudge, MeasuresPicturesAgainstPrompts) {
  const auto judge = make_shapes_judge();
  const shapes::Scene scene{.objects = {{.colour = shapes::Colour::kRed, .shape = shapes::Shape::kCircle}},
                            .background = 240};
  const at::Tensor image = shapes::render(scene);
  const auto right = judge->score(image, "a red circle");
  const auto wrong = judge->score(image, "a green circle");
  ASSERT_EQ(right.size(), judge->axes().size());
  EXPECT_EQ(right[0], 1);
  EXPECT_EQ(wrong[0], 0);
  EXPECT_NEAR(right[2], 240, 2);
  EXPECT_EQ(judge->compare(right, wrong), shapes::Verdict::kFirst);
  EXPECT_EQ(judge->compare(right, right), shapes::Verdict::kTie);
  EXPECT_EQ(judge->prompt_kind("a red circle"), "one object");
}

TEST(ShapesJudge, RefusesOtherPromptsAndJudges) {
  EXPECT_NO_THROW(make_shapes_judge()->check_prompt("A red circle."));
  EXPECT_THROW(make_shapes_judge()->check_prompt("a photo of a cat"), Error);
  EXPECT_THROW(make_judge({.rewards = {"beauty"}}), Error);
  EXPECT_THROW(make_judge({.margin = -1}), Error);
}

TEST(EvaluateNothing, IsRefused) {
  EXPECT_THROW(summarize({}, *make_shapes_judge()), Error);
}

TEST(RewardJudge, HasAnAxisAModel) {
  const auto judge = make_judge({.rewards = {"shapes", "shapes/again"}});
  ASSERT_EQ(judge->axes().size(), 2u);
  EXPECT_EQ(judge->axes()[1].name, "shapes/again");
  const at::Tensor light = at::full({64, 64, 3}, 250, at::kByte), dark = at::full({64, 64, 3}, 20, at::kByte);
  const auto scores = judge->score_all({light, dark}, {"a red circle", "a blue square"});
  EXPECT_EQ(scores[0], judge->score(light, "a red circle"));
  EXPECT_EQ(scores[0][0], scores[0][1]);
  EXPECT_GT(judge->reward(scores[0]), judge->reward(scores[1]));
  EXPECT_THROW(judge->check_prompt("an astronaut"), Error);
}

TEST(RewardJudge, MajorityOfModelsWins) {
  const auto judge = make_judge({.rewards = {"shapes/a", "shapes/b", "shapes/c"}, .margin = 0.5});
  const auto verdict = [&](std::vector<double> first, std::vector<double> second) {
    return judge->compare(first, second);
  };
  EXPECT_EQ(verdict({1, 1, 0}, {0, 0, 9}), shapes::Verdict::kFirst);
  EXPECT_EQ(verdict({0, 0, 9}, {1, 1, 0}), shapes::Verdict::kSecond);
  EXPECT_EQ(verdict({1, 0, 0.4}, {0, 1, 0}), shapes::Verdict::kTie);
  EXPECT_EQ(verdict({0.5, 0.5, 0.5}, {0, 0, 0}), shapes::Verdict::kTie);
}

TEST(RewardJudge, EveryModelHasItsWinRate) {
  const auto judge = make_judge({.rewards = {"shapes/a", "shapes/b"}});
  std::vector<JudgedPair> pairs;
  for (int i = 0; i < 4; ++i) {
    JudgedPair pair{.prompt = "p", .baseline = {0, 0}, .model = {1, i < 3 ? -1.0 : 0.0}};
    pair.verdict = judge->compare(pair.model, pair.baseline);
    pairs.push_back(pair);
  }
  const EvaluationSummary summary = summarize(pairs, *judge);
  EXPECT_EQ(summary.axes[0].win_rate->rate, 1.0);
  EXPECT_EQ(summary.axes[1].win_rate->losses, 3);
  EXPECT_EQ(summary.axes[1].win_rate->ties, 1);
  EXPECT_EQ(summary_json(summary)["axes"][1]["win_rate"]["losses"], 3);
}

}  // namespace
}  // namespace prefusion::training
