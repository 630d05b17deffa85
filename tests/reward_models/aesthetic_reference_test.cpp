// Aesthetic heads against layered ones, SigLIP against transformers (tests/reference/make_aesthetic.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/torch_file.h"
#include "reward_models/aesthetic_head.h"
#include "reward_models/scorer.h"
#include "reward_models/siglip_vision_model.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::reward_models {
namespace {

using tests::error_message;
using tests::mentions;
using tests::near;

class AestheticReference : public testing::Test {
 protected:
  static void SetUpTestSuite() { root_ = tests::run_reference_script("make_aesthetic.py"); }
  static std::filesystem::path head(const std::string& name) { return root_ / "heads" / name; }
  static inline std::filesystem::path root_;
};

TEST_F(AestheticReference, FoldedHeadsScoreLikeTheirLayers) {
  const TensorMap expected = read_safetensors(root_ / "features.safetensors");
  const auto scores = [&](const std::string& file, const std::string& width) {
    return read_aesthetic_head(head(file)).score(expected.at("features." + width));
  };
  EXPECT_TRUE(near(scores("v1.pth", "24"), expected.at("v1"), 1e-6));
  EXPECT_TRUE(near(scores("v2.pth", "24"), expected.at("v2"), 1e-6));
  EXPECT_TRUE(near(scores("v25.pth", "32"), expected.at("v25"), 1e-6));
  EXPECT_TRUE(near(scores("v25.safetensors", "32"), expected.at("v25"), 1e-6));
}

TEST_F(AestheticReference, RefusesHeadsThatAreNotLinearOrBroken) {
  const auto message = [](const std::string& name) {
    return error_message(ErrorClass::kInput, [&] { read_aesthetic_head(head(name)); });
  };
  EXPECT_TRUE(mentions(message("ava-reluMSE.pth"), "activations"));
  EXPECT_TRUE(mentions(message("gaps.pth"), "[0, 3, 6, 9, 11]"));
  EXPECT_TRUE(mentions(message("misfit.pth"), "layers.2"));
  EXPECT_TRUE(mentions(message("no_bias.pth"), "layers.4"));
  EXPECT_TRUE(mentions(message("extra.pth"), "norm.weight"));
}

TEST_F(AestheticReference, SiglipGivesThePooledOutputOfTransformers) {
  const TensorMap expected = read_safetensors(root_ / "siglip.safetensors");
  for (const char* name : {"siglip", "siglip_vision"}) {
    SCOPED_TRACE(name);
    const auto tower = load_siglip_tower(root_ / name, {});
    EXPECT_TRUE(is_siglip(root_ / name));
    EXPECT_TRUE(near(tower->features(expected.at("pixels").unbind(0)), expected.at("pooled"), 1e-5));
  }
}

TEST_F(AestheticReference, HeadsNeedTheirModel) {
  const auto open = [](const std::string& path, const std::vector<std::string>& arguments) {
    Scorer scorer(parse_reward_specs({"aesthetic=" + path}, arguments), {});
    scorer.score_pictures({at::zeros({30, 30, 3}, at::kByte)}, {""});
  };
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kUsage, [&] { open(head("v1.pth").string(), {}); }), "aesthetic.clip"));
  const std::string siglip = "aesthetic.clip=" + (root_ / "siglip").string();
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { open(head("v1.pth").string(), {siglip}); }), "24"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { open(head("none.pth").string(), {siglip}); }), "none"));
}

TEST_F(AestheticReference, ScoresPicturesWhateverThePrompt) {
  const std::vector<at::Tensor> pictures = {at::zeros({30, 30, 3}, at::kByte), at::full({30, 30, 3}, 200, at::kByte)};
  const std::string siglip = (root_ / "siglip").string();
  Scorer scorer(parse_reward_specs({"aesthetic=" + head("v25.pth").string()}, {"aesthetic.clip=" + siglip}), {});
  const at::Tensor scores = scorer.score_pictures(pictures, {"a", "b"});
  EXPECT_TRUE(at::equal(scores, scorer.score_pictures(pictures, {"c", ""})));
  // A folder that holds both is enough.
  std::filesystem::copy_file(head("v25.pth"), root_ / "siglip" / "head.pth");
  Scorer from_folder(parse_reward_specs({"aesthetic=" + siglip}, {}), {});
  EXPECT_TRUE(at::equal(scores, from_folder.score_pictures(pictures, {"", ""})));
}

}  // namespace
}  // namespace prefusion::reward_models
