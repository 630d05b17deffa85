#include <ATen/ATen.h>
#include <gtest/gtest.h>

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

const std::filesystem::path& reference() {
  static const std::filesystem::path folder = tests::run_reference_script("make_reward_heads.py");
  return folder;
}

std::string head(const std::string& name) {
  return (reference() / "heads" / name).string();
}

at::Tensor scores_of(const std::vector<std::string>& rewards, const std::vector<std::string>& arguments) {
  Scorer scorer(parse_reward_specs(rewards, arguments), {.batch_size = 3});
  const auto prompts = read_json(reference() / "prompts.json").get<std::vector<std::string>>();
  std::vector<at::Tensor> pictures;
  for (size_t i = 0; i < prompts.size(); ++i) {
    pictures.push_back(images::decode_image(read_file(reference() / "pictures" / (std::to_string(i) + ".png"))));
  }
  return scorer.score_pictures(pictures, prompts);
}

void expect_scores(const std::string& name, const std::string& kind, const std::string& option,
                   const std::string& value, const std::string& expected) {
  const at::Tensor found =
      scores_of({kind + "=" + head(name)}, value.empty() ? std::vector<std::string>{}
                                                         : std::vector<std::string>{kind + "." + option + "=" + value});
  EXPECT_TRUE(near(found.select(1, 0), read_safetensors(head(name) + ".safetensors").at(expected), 2e-5))
      << name << ", " << option << ' ' << value;
}

TEST(RewardHeadReference, MlpEqualsItsFormula) {
  expect_scores("mlp", "trained", "", "", "overall");
}

TEST(RewardHeadReference, AspectsAreMixedByTheGate) {
  expect_scores("aspects", "trained", "", "", "overall");
  for (const char* aspect : {"overall", "alignment", "fidelity"}) {
    expect_scores("aspects", "trained", "aspect", aspect, aspect);
  }
}

TEST(RewardHeadReference, PalEqualsItsFormulaForEveryUser) {
  for (const char* name : {"pal_a_angle", "pal_a_dist", "pal_b_angle", "pal_b_dist"}) {
    for (const char* user : {"anna", "bert", "zoe"}) expect_scores(name, "pal", "user", user, user);
    expect_scores(name, "pal", "", "", "mean");
    expect_scores(name, "trained", "", "", "mean");
  }
}

TEST(RewardHeadReference, SharesTheTowerOfItsClip) {
  const std::string clip = (reference() / "clip").string();
  Scorer scorer(parse_reward_specs({"pickscore=" + clip, "pal=" + head("pal_b_angle"), "trained=" + head("mlp")}, {}),
                {});
  EXPECT_EQ(scorer.model(0).tower(), scorer.model(1).tower());
  EXPECT_EQ(scorer.model(0).tower(), scorer.model(2).tower());
}

TEST(RewardHeadReference, HeadsOnOneClipShareItsPromptsAndScoreAsAlone) {
  const std::vector<std::string> rewards = {"pickscore=" + (reference() / "clip").string(),
                                            "clip=" + (reference() / "clip").string(), "trained=" + head("aspects"),
                                            "pal=" + head("pal_b_angle")};
  const Scorer scorer(parse_reward_specs(rewards, {}), {});
  EXPECT_NE(scorer.model(0).prompt_key(), "");
  const at::Tensor together = scores_of(rewards, {});
  for (size_t i = 0; i < rewards.size(); ++i) {
    EXPECT_EQ(scorer.model(i).prompt_key(), scorer.model(0).prompt_key()) << rewards[i];
    EXPECT_TRUE(at::equal(together.select(1, static_cast<int64_t>(i)), scores_of({rewards[i]}, {}).select(1, 0)))
        << rewards[i];
  }
}

TEST(RewardHeadReference, UnknownUsersAndAspectsAreRefused) {
  const auto message = [](const std::string& reward, const std::string& argument) {
    return error_message(ErrorClass::kUsage, [&] { Scorer(parse_reward_specs({reward}, {argument}), {}); });
  };
  const std::string user = message("pal=" + head("pal_b_dist"), "pal.user=abel");
  EXPECT_TRUE(mentions(user, "3 users") && mentions(user, "anna") && !mentions(user, "zoe")) << user;
  EXPECT_TRUE(mentions(message("trained=" + head("aspects"), "trained.aspect=taste"), "alignment, fidelity"));
  EXPECT_TRUE(mentions(message("trained=" + head("mlp"), "trained.user=anna"), "user"));
}

TEST(RewardHeadReference, FoldersThatDoNotFitAreRefused) {
  const std::filesystem::path folder = reference() / "heads" / "damaged";
  std::filesystem::copy(head("pal_b_dist"), folder);
  const auto refused = [&](const std::function<void(Json&)>& change, const std::string& kind = "pal") {
    Json json = read_json(std::filesystem::path(head("pal_b_dist")) / "reward.json");
    change(json);
    write_file(folder / "reward.json", json.dump());
    return error_message(ErrorClass::kInput,
                         [&] { Scorer(parse_reward_specs({kind + "=" + folder.string()}, {}), {}); });
  };
  EXPECT_TRUE(mentions(refused([](Json& j) { j["format"] = 2; }), "format"));
  EXPECT_TRUE(mentions(refused([](Json& j) { j["head"]["kind"] = "forest"; }), "forest"));
  EXPECT_TRUE(mentions(refused([](Json& j) { j["head"]["depth"] = 3; }), "depth"));
  EXPECT_TRUE(mentions(refused([](Json& j) { j["head"]["users"].push_back("max"); }), "user_weights"));
  EXPECT_TRUE(mentions(refused([](Json& j) { j["head"]["prototypes"] = 4; }), "g3"));
  EXPECT_TRUE(mentions(refused([](Json& j) { j["clip"] = "../../nowhere"; }), "pal.clip=DIR"));
  EXPECT_TRUE(mentions(refused([](Json& j) { j["clip_key"] = "0123"; }), "weights differ"));
  EXPECT_TRUE(mentions(refused([](Json& j) {
                         j["head"]["kind"] = "mlp";
                         j["head"]["hidden"] = 3;
                       }),
                       "not pal"));
  error_message(ErrorClass::kInput,
                [&] { Scorer(parse_reward_specs({"trained=" + (reference() / "clip").string()}, {}), {}); });
}

}  // namespace
}  // namespace prefusion::reward_models
