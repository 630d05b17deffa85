// PickScore and CLIPScore against transformers' CLIPModel and CLIPImageProcessorPil, live.
#include "reward_models/clip_rewards.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/json_config.h"
#include "core/safetensors.h"
#include "images/image_decode.h"
#include "reward_models/scorer.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::reward_models {
namespace {

using tests::error_message;
using tests::mentions;
using tests::near;

const char* const kModels[] = {"plain", "gelu_wide_heads", "odd", "shallow", "sd_era", "ragged_patches"};

class ClipRewardReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = tests::run_reference_script("make_clip_rewards.py");
    prompts_ = read_json(root_ / "prompts.json").get<std::vector<std::string>>();
    for (size_t i = 0; i < prompts_.size(); ++i) {
      pictures_.push_back(images::decode_image(read_file(root_ / "pictures" / (std::to_string(i) + ".png"))));
    }
  }

  static std::filesystem::path folder(const std::string& name) { return root_ / "models" / name; }
  static TensorMap expected(const std::string& name) {
    return read_safetensors(root_ / "models" / (name + ".safetensors"));
  }
  static std::string spec(const std::string& kind, const std::string& name) {
    return kind + "=" + folder(name).string();
  }
  static at::Tensor scores(const std::vector<std::string>& rewards, const ScorerOptions& options = {},
                           const std::vector<std::string>& arguments = {}) {
    return Scorer(parse_reward_specs(rewards, arguments), options).score_pictures(pictures_, prompts_);
  }

  static std::filesystem::path root_;
  static std::vector<std::string> prompts_;
  static std::vector<at::Tensor> pictures_;
};
std::filesystem::path ClipRewardReference::root_;
std::vector<std::string> ClipRewardReference::prompts_;
std::vector<at::Tensor> ClipRewardReference::pictures_;

TEST_F(ClipRewardReference, TowersGiveTheFeaturesOfTransformers) {
  for (const char* name : kModels) {
    SCOPED_TRACE(name);
    const TensorMap reference = expected(name);
    const ClipParts parts = open_clip_folder(folder(name), {});
    const auto tower = parts.pictures();
    std::vector<at::Tensor> prepared;
    for (const at::Tensor& picture : pictures_) prepared.push_back(tower->prepare(images::rgb_picture(picture)));
    EXPECT_TRUE(near(at::stack(prepared), reference.at("pixels"), 1e-6));
    EXPECT_TRUE(near(tower->features(prepared), reference.at("picture_features"), 1e-5));
    EXPECT_TRUE(near(parts.prompts()->encode(prompts_), reference.at("prompt_features"), 1e-5));
  }
}

TEST_F(ClipRewardReference, PickScoreIsTheScaledCosine) {
  for (const char* name : kModels) {
    SCOPED_TRACE(name);
    const at::Tensor found = scores({spec("pickscore", name)}).squeeze(1);
    EXPECT_LT((found - expected(name).at("pickscore")).abs().max().item<double>(), 1e-3);
  }
}

TEST_F(ClipRewardReference, ClipScoreIsAHundredTimesThePositivePart) {
  const at::Tensor cosine = expected("plain").at("cosines");
  ASSERT_LT(cosine.min().item<double>(), 0);
  const at::Tensor found = scores({spec("clip", "plain")}).squeeze(1);
  EXPECT_LT((found - 100 * cosine.clamp_min(0)).abs().max().item<double>(), 1e-3);
  const at::Tensor scaled = scores({spec("clip", "plain")}, {}, {"clip.scale=2.5"}).squeeze(1);
  EXPECT_LT((scaled - 2.5 * cosine.clamp_min(0)).abs().max().item<double>(), 1e-4);
}

TEST_F(ClipRewardReference, PrefixStandsBeforeThePrompt) {
  const std::string prefix = "a photo of ";
  std::vector<std::string> prefixed;
  for (const std::string& prompt : prompts_) prefixed.push_back(prefix + prompt);
  const at::Tensor found = scores({spec("clip", "plain")}, {}, {"clip.prefix=" + prefix});
  const at::Tensor written =
      Scorer(parse_reward_specs({spec("clip", "plain")}, {}), {}).score_pictures(pictures_, prefixed);
  EXPECT_TRUE(at::equal(found, written));
}

TEST_F(ClipRewardReference, PromptsBehindAPrefixAreNotShared) {
  const std::vector<std::string> rewards = {spec("clip", "plain"), spec("clip/photo", "plain"),
                                            spec("denscore", "plain")};
  const std::vector<std::string> arguments = {"clip/photo.prefix=a photo of "};
  const at::Tensor together = scores(rewards, {}, arguments);
  EXPECT_TRUE(at::equal(together.select(1, 0), scores({rewards[0]}).select(1, 0)));
  EXPECT_TRUE(at::equal(together.select(1, 1), scores({rewards[1]}, {}, arguments).select(1, 0)));
  EXPECT_TRUE(at::equal(together.select(1, 2), scores({rewards[2]}).select(1, 0)));
  EXPECT_FALSE(at::equal(together.select(1, 0), together.select(1, 1)));
}

TEST_F(ClipRewardReference, HalvesAreLoadedOnceARun) {
  SharedParts shared;
  const auto prompts = [&](const char* name, at::ScalarType dtype) {
    return open_clip_folder(folder(name), {.dtype = dtype, .shared = &shared}).prompts();
  };
  const auto encoder = prompts("plain", at::kFloat);
  EXPECT_EQ(prompts("plain", at::kFloat), encoder);
  EXPECT_NE(prompts("odd", at::kFloat), encoder);
  EXPECT_NE(prompts("plain", at::kBFloat16), encoder);
  EXPECT_NE(open_clip_folder(folder("plain"), {}).prompts(), encoder);
}

TEST_F(ClipRewardReference, BatchesDoNotChangeScores) {
  const std::vector<std::string> rewards = {spec("pickscore", "odd"), spec("clip", "plain")};
  const at::Tensor together = scores(rewards, {.batch_size = 6});
  EXPECT_TRUE(near(scores(rewards, {.batch_size = 1}), together, 1e-5));
  EXPECT_TRUE(near(scores(rewards, {.batch_size = 4}), together, 1e-5));
}

TEST_F(ClipRewardReference, HalfPrecisionTowersStayClose) {
  const at::Tensor full = scores({spec("pickscore", "plain")});
  const at::Tensor half = scores({spec("pickscore", "plain")}, {.dtype = at::kBFloat16});
  EXPECT_LT((full - half).abs().max().item<double>(), 3.0);  // of +-100
  EXPECT_GT((full - half).abs().max().item<double>(), 0.0);
}

TEST_F(ClipRewardReference, PromptsSayWhatIsCutOff) {
  const Scorer scorer(parse_reward_specs({spec("pickscore", "plain")}, {}), {});
  const PromptFacts shorter = scorer.model(0).prompt_facts(prompts_[0]);
  EXPECT_EQ(shorter.num_truncated, 0);
  const PromptFacts longer = scorer.model(0).prompt_facts(prompts_[5]);
  EXPECT_EQ(longer.num_tokens, 24);
  EXPECT_GT(longer.num_truncated, 0);
}

TEST_F(ClipRewardReference, FoldersThatAreNoClipModelAreRefused) {
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { scores({"pickscore=/no/such/folder"}); }), "/no/such"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { scores({"pickscore"}); }), "transformers CLIP folder"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { scores({"picscore=x"}); }), "pickscore"));
  EXPECT_TRUE(mentions(
      error_message(ErrorClass::kUsage, [&] { scores({spec("pickscore", "plain")}, {}, {"pickscore.scale=2"}); }),
      "scale"));
}

}  // namespace
}  // namespace prefusion::reward_models
