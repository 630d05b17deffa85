#include "training/online/online_options.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/training/online/online_options.h"

namespace prefusion::training {
namespace {

class OnlineOptionsTest : public testing::Test {
 protected:
  // All problems of an objective's options in one text.
  std::string problems(const std::string& objective) {
    options_.objective = objective;
    std::string text;
    for (const auto& problem : online_problems(options_, *losses::find_online_objective(objective)))
      text += problem + "\n";
    return text;
  }

  tests::TempDir folder_;
  AlignOptions options_ = tests::online_options(folder_, "ddpo");
};

TEST_F(OnlineOptionsTest, SuitTheirObjective) {
  for (const char* objective :
       {"ddpo", "dance-grpo", "flow-grpo", "grpo-guard", "d3po", "prdp", "spo", "diffusion-nft"}) {
    EXPECT_EQ(problems(objective), "") << objective;
  }
  options_.online = {};
  options_.online.reward = "shapes-soft";
  EXPECT_EQ(problems("longalign"), "");
}

TEST_F(OnlineOptionsTest, RewardWithoutAGradientIsRefusedByName) {
  options_.online = {};
  EXPECT_NE(problems("longalign").find("--reward shapes has no gradient"), std::string::npos);
  options_.online.reward = "beauty";
  EXPECT_NE(problems("longalign").find("beauty is not known; expected shapes-soft"), std::string::npos);
  options_.online.reward = "shapes-soft";
  EXPECT_NE(problems("ddpo").find("--reward shapes-soft"), std::string::npos);
}

TEST_F(OnlineOptionsTest, FlagsThatWouldDoNothingAreRefused) {
  options_.online.reward = "shapes-soft";
  options_.online.eta = 0.5;
  options_.online.window = 2;
  options_.online.inner_epochs = 3;
  options_.reference = "frozen";
  const std::string text = problems("longalign");
  for (const char* flag :
       {"--prompts-per-round", "--group-size", "--eta", "--sde-window", "--inner-epochs", "--reference"}) {
    EXPECT_NE(text.find(flag), std::string::npos) << flag << " is missing in: " << text;
  }
  options_.online.reward = "shapes";
  EXPECT_NE(problems("diffusion-nft").find("--sde-window"), std::string::npos);
  EXPECT_NE(problems("ddpo").find("--reference"), std::string::npos);
  EXPECT_EQ(problems("d3po"), "");
}

TEST_F(OnlineOptionsTest, RangesAreThoseOfTheObjective) {
  options_.online.eta = 0;
  EXPECT_NE(problems("spo").find("--eta"), std::string::npos);
  EXPECT_EQ(problems("diffusion-nft"), "");  // any sampler will do
  options_.online.eta = 1;
  options_.online.group_size = 1;
  EXPECT_NE(problems("ddpo").find("--group-size"), std::string::npos);
  EXPECT_EQ(problems("spo"), "");  // compares candidates, not trajectories
  options_.online.group_size = 0;
  EXPECT_NE(problems("spo").find("--group-size"), std::string::npos);
}

TEST_F(OnlineOptionsTest, PromptsMakeAnObjectiveOnDataAnOnlineOne) {
  const auto found = [&](const std::string& objective) {
    options_.objective = objective;
    return online_objective_of(options_);
  };
  for (const char* objective : {"diffusion-dpo", "rankdpo", "kto", "sft", "ddpo"}) {
    ASSERT_NE(found(objective), nullptr) << objective;
    EXPECT_EQ(found(objective)->info.name, objective);
  }
  for (const char* objective : {"ddim-inpo", "dcpo", "masked", "ppd", "tlpo", "spin"}) {
    EXPECT_EQ(found(objective), nullptr) << objective;
  }
  options_.online.prompts.clear();
  EXPECT_EQ(found("diffusion-dpo"), nullptr);
  EXPECT_NE(found("ddpo"), nullptr);
}

TEST_F(OnlineOptionsTest, ObjectivesOnDataTakeAnyReference) {
  const auto problems_on_samples = [&](const std::string& objective) {
    options_.objective = objective;
    return online_problems(options_, *online_objective_of(options_));
  };
  options_.reference = "frozen";
  options_.online.eta = 0;
  EXPECT_EQ(problems_on_samples("diffusion-dpo").size(), 0u);
  EXPECT_EQ(problems_on_samples("simpo").size(), 1u);  // compares with none
  options_.loss.anchor_weight = 1;
  EXPECT_EQ(problems_on_samples("simpo").size(), 0u);
}

class SamplingNoise : public OnlineOptionsTest {
 protected:
  double noise(const std::string& objective, bool is_flow) {
    return sampling_noise(options_, *losses::find_online_objective(objective), is_flow);
  }
  std::string refusal(const std::string& objective, bool is_flow) {
    try {
      check_sampling_noise(options_, *losses::find_online_objective(objective), is_flow);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(SamplingNoise, IsThatOfTheModelsSteps) {
  EXPECT_EQ(noise("flow-grpo", true), 0.7);
  EXPECT_EQ(noise("dance-grpo", true), 0.3);
  EXPECT_EQ(noise("diffusion-nft", true), 0);
  options_.online.eta = 0.4;
  EXPECT_EQ(noise("flow-grpo", false), 0.4);
  const losses::OnlineObjective& on_samples = *losses::find_objective_on_samples("rankdpo");
  EXPECT_EQ(sampling_noise(options_, on_samples, /*is_flow=*/false), 0.4);
  EXPECT_EQ(sampling_noise(options_, on_samples, /*is_flow=*/true), 0);  // the ODE
  options_.objective_args = "noise_level=1.2";
  EXPECT_EQ(noise("spo", true), 1.2);
}

TEST_F(SamplingNoise, OfOtherStepsIsRefusedByName) {
  EXPECT_EQ(refusal("flow-grpo", true), "");
  EXPECT_EQ(refusal("flow-grpo", false), "");
  for (const char* objective : {"dance-grpo", "grpo-guard"}) {
    EXPECT_NE(refusal(objective, false).find(objective), std::string::npos);
    EXPECT_EQ(refusal(objective, true), "");
  }
  options_.objective_args = "noise_level=0.5";
  EXPECT_NE(refusal("ddpo", false).find("noise_level"), std::string::npos);
  options_.online.eta = 0.5;
  EXPECT_NE(refusal("ddpo", true).find("--eta"), std::string::npos);
}

}  // namespace
}  // namespace prefusion::training
