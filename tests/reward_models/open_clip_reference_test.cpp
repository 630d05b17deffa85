// HPSv2 and CLIPScore of open_clip models against open_clip itself (tests/reference/make_open_clip.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/atomic_file.h"
#include "core/json_config.h"
#include "images/image_decode.h"
#include "reward_models/open_clip_model.h"
#include "reward_models/open_clip_weights.h"
#include "reward_models/scorer.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"

namespace prefusion::reward_models {
namespace {

using tests::error_message;
using tests::mentions;
using tests::near;

const char* const kModels[] = {"plain", "quick", "odd", "changed", "half", "custom", "scripted"};

class OpenClipReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = tests::run_reference_script("make_open_clip.py");
    prompts_ = read_json(root_ / "scored.json").get<std::vector<std::string>>();
    for (size_t i = 0; i < prompts_.size(); ++i) {
      pictures_.push_back(images::decode_image(read_file(root_ / "pictures" / (std::to_string(i) + ".png"))));
    }
  }
  static TensorMap expected(const std::string& name) {
    return read_safetensors(root_ / "models" / (name + ".safetensors"));
  }
  static at::Tensor scores(const std::string& reward, const std::vector<std::string>& arguments = {}) {
    return Scorer(parse_reward_specs({reward}, arguments), {}).score_pictures(pictures_, prompts_).squeeze(1);
  }
  static std::string path(const std::string& name) { return (root_ / "models" / name).string(); }

  static inline std::filesystem::path root_;
  static inline std::vector<std::string> prompts_;
  static inline std::vector<at::Tensor> pictures_;
};

TEST_F(OpenClipReference, PromptFeaturesAreThoseOfOpenClip) {
  for (const char* name : kModels) {
    SCOPED_TRACE(name);
    const ClipParts parts = load_open_clip(path(name), {.kind = "clip"}, {});
    EXPECT_TRUE(near(parts.prompts()->encode(prompts_), expected(name).at("prompt_features"), 1e-5));
    EXPECT_NEAR(parts.logit_scale, std::exp(4.6), std::string(name) == "half" ? 1.0 : 1e-3);
  }
}

TEST_F(OpenClipReference, HpsIsTheCosineUnderEitherPreparation) {
  for (const char* name : kModels) {
    SCOPED_TRACE(name);
    const TensorMap reference = expected(name);
    const auto compare = [&](const char* kind, const std::vector<std::string>& arguments) {
      SCOPED_TRACE(kind);
      const at::Tensor difference = scores("hpsv2=" + path(name), arguments) - reference.at(kind);
      EXPECT_LT(difference.abs().max().item<double>(), 1e-4);
    };
    compare("pillow", {"hpsv2.resize=pillow"});
    if (std::string(name) == "changed") continue;  // the package's preparation knows no other settings
    compare("tensor", {});
    compare("aliased", {"hpsv2.antialias=off"});
  }
}

TEST_F(OpenClipReference, ClipScoreTakesOpenClipFolders) {
  const at::Tensor cosines = expected("quick").at("pillow");
  EXPECT_LT((scores("clip=" + path("quick")) - cosines.clamp_min(0) * 100).abs().max().item<double>(), 1e-2);
}

TEST_F(OpenClipReference, PromptsAreSharedWhateverThePreparationOfPictures) {
  const std::vector<std::string> rewards = {"hpsv2=" + path("plain"), "clip=" + path("plain")};
  Scorer scorer(parse_reward_specs(rewards, {}), {});
  EXPECT_NE(scorer.model(0).tower(), scorer.model(1).tower());
  EXPECT_EQ(scorer.model(0).prompt_key(), scorer.model(1).prompt_key());
  const at::Tensor together = scorer.score_pictures(pictures_, prompts_);
  EXPECT_TRUE(at::equal(together.select(1, 0), scores(rewards[0])));
  EXPECT_TRUE(at::equal(together.select(1, 1), scores(rewards[1])));
}

TEST_F(OpenClipReference, RefusesWhatItCannotCompute) {
  const std::pair<const char*, Json> changes[] = {
      {"timm_model_name", {{"vision_cfg", {{"timm_model_name", "vit_base_patch16_siglip_224"}}}}},
      {"layers", {{"vision_cfg", {{"layers", {3, 4, 6, 3}}}}}},
      {"attentional_pool", {{"vision_cfg", {{"attentional_pool", true}}}}},
      {"no_ln_pre", {{"vision_cfg", {{"no_ln_pre", true}}}}},
      {"pool_type", {{"vision_cfg", {{"pool_type", "avg"}}}}},
      {"ls_init_value", {{"vision_cfg", {{"ls_init_value", 0.1}}}}},
      {"qk_norm", {{"vision_cfg", {{"qk_norm", true}}}}},
      {"image_size", {{"vision_cfg", {{"image_size", {24, 32}}}}}},
      {"head_width", {{"vision_cfg", {{"head_width", 0}}}}},
      {"patch_sizes", {{"vision_cfg", {{"patch_sizes", 3}}}}},
      {"hf_model_name", {{"text_cfg", {{"hf_model_name", "roberta-base"}}}}},
      {"hf_tokenizer_name", {{"text_cfg", {{"hf_tokenizer_name", "bert"}}}}},
      {"no_causal_mask", {{"text_cfg", {{"no_causal_mask", true}}}}},
      {"pool_type", {{"text_cfg", {{"pool_type", "last"}}}}},
      {"proj_type", {{"text_cfg", {{"proj_type", "none"}}}}},
      {"clean", {{"text_cfg", {{"tokenizer_kwargs", {{"clean", "canonicalize"}}}}}}},
      {"multimodal_cfg", {{"multimodal_cfg", {{"layers", 1}}}}},
  };
  const Json config = read_json(root_ / "models" / "plain" / "open_clip_config.json");
  for (const auto& [key, change] : changes) {
    Json changed = config;
    changed["model_cfg"].merge_patch(change);
    EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { parse_open_clip_config(changed, "x"); }), key));
  }
  Json changed = config;
  changed["preprocess_cfg"]["resize_mode"] = "longest";
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { parse_open_clip_config(changed, "x"); }), "longest"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [] { open_clip_architecture("RN50"); }), "ViT-bigG-14"));
}

TEST_F(OpenClipReference, SaysWhatIsMissing) {
  const tests::TempDir folder;
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { scores("hpsv2=" + folder.path().string()); }),
                       "no weights found"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { scores("hpsv2=/nowhere"); }), "/nowhere"));
  // Weights of one shape under an architecture of another.
  const std::string weights = (root_ / "models" / "plain" / "open_clip_model.safetensors").string();
  const std::string message =
      error_message(ErrorClass::kInput, [&] { scores("hpsv2=" + weights, {"hpsv2.model=ViT-B-32"}); });
  EXPECT_TRUE(mentions(message, "do not fit"));
  std::filesystem::copy_file(weights, folder / "bare.safetensors");
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kUsage, [&] { scores("clip=" + (folder / "bare.safetensors").string()); }),
               "clip.model="));
}

TEST(OpenClipArchitecture, HasTheSizesOfThePublicModels) {
  const OpenClipConfig huge = open_clip_architecture("ViT-H-14");
  EXPECT_EQ(huge.vision.num_attention_heads, 16);
  EXPECT_EQ(huge.vision.intermediate_size, 5120);
  EXPECT_EQ(huge.vision.hidden_act, "gelu");
  EXPECT_EQ(huge.text.num_hidden_layers, 24);
  EXPECT_EQ(huge.text.projection_dim, 1024);
  EXPECT_EQ(open_clip_architecture("ViT-bigG-14").vision.intermediate_size, 8192);
  EXPECT_EQ(open_clip_architecture("ViT-g-14").vision.intermediate_size, 6144);
  EXPECT_EQ(open_clip_architecture("ViT-L-14-quickgelu").text.hidden_act, "quick_gelu");
}

}  // namespace
}  // namespace prefusion::reward_models
