// What a FluxTransformer2DModel folder may not hold, what its network may not be asked, and that errors say so by name.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "tests/support/input_error.h"
#include "unet/denoiser.h"
#include "unet/flux_config.h"

namespace prefusion::unet {
namespace {

Json small_config() {
  return parse_json(R"({"_class_name": "FluxTransformer2DModel", "_diffusers_version": "0.30.0.dev0",
    "_name_or_path": "../checkpoints/flux-dev/transformer", "attention_head_dim": 8, "axes_dims_rope": [2, 2, 4],
    "guidance_embeds": true, "in_channels": 16, "joint_attention_dim": 12, "num_attention_heads": 2, "num_layers": 1,
    "num_single_layers": 1, "out_channels": null, "patch_size": 1, "pooled_projection_dim": 6})",
                    "test");
}

TEST(FluxConfig, DefaultsAreThoseOfDiffusers) {
  const FluxConfig config = parse_flux_config(Json::object(), "test");
  EXPECT_EQ(config.in_channels, 64);
  EXPECT_EQ(config.out_channels, 64);
  EXPECT_EQ(config.num_layers, 19);
  EXPECT_EQ(config.num_single_layers, 38);
  EXPECT_EQ(config.inner_dim(), 3072);
  EXPECT_EQ(config.joint_attention_dim, 4096);
  EXPECT_EQ(config.pooled_projection_dim, 768);
  EXPECT_FALSE(config.guidance_embeds);
  EXPECT_EQ(config.axes_dims_rope, (std::vector<int64_t>{16, 56, 56}));
}

TEST(FluxConfig, OutChannelsFollowInChannelsUnlessGiven) {
  for (const Json& absent : {Json(nullptr), Json(0)}) {
    Json config = small_config();
    config["out_channels"] = absent;
    EXPECT_EQ(parse_flux_config(config, "test").out_channels, 16);
  }
  Json config = small_config();
  config["out_channels"] = 8;
  EXPECT_EQ(parse_flux_config(config, "test").out_channels, 8);
}

TEST(FluxConfig, RefusesUnsupportedValuesByName) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"axes_dims_rope", {2, 6}},
      {"axes_dims_rope", {1, 3, 4}},
      {"axes_dims_rope", {2, 2, 2}},
      {"axes_dims_rope", {-2, 6, 4}},
      {"axes_dims_rope", 8},
      {"attention_head_dim", 16},
      {"attention_head_dim", 0},
      {"num_attention_heads", 0},
      {"in_channels", 18},
      {"in_channels", 0},
      {"out_channels", 10},
      {"out_channels", -4},
      {"patch_size", 0},
      {"num_layers", -1},
      {"num_single_layers", 1.5},
      {"joint_attention_dim", "wide"},
      {"pooled_projection_dim", 0},
      {"guidance_embeds", 3.5},
      {"quantization_config", {{"a", 1}}},
      {"num_layers", true},
  };
  for (const auto& [key, value] : cases) {
    Json config = small_config();
    config[key] = value;
    const std::string message = tests::input_error_of([&] { make_denoiser(config.dump(), "transformer/config.json"); });
    EXPECT_NE(message.find(key), std::string::npos) << key << " = " << value << ": " << message;
    EXPECT_NE(message.find("transformer/config.json"), std::string::npos) << message;
  }
}

class FluxForward : public testing::Test {
 protected:
  // Everything fits; each test damages one thing.
  at::Tensor latents = at::zeros({2, 4, 4, 6});
  Conditioning conditioning{
      .encoder_hidden_states = at::zeros({2, 5, 12}), .pooled = at::zeros({2, 6}), .guidance = at::full({2}, 3.5)};

  std::string run(const Json& config = small_config()) {
    const auto model = make_denoiser(config.dump(), "test");
    nn::init_weights(*model, make_torch_generator(0));
    return tests::input_error_of([&] { model->forward(latents, at::full({2}, 500.0), conditioning); });
  }
};

TEST_F(FluxForward, TakesWhatFits) {
  EXPECT_EQ(run(), "nothing was thrown");
}

TEST_F(FluxForward, RefusesLatentsThatDoNotPack) {
  const std::vector<std::vector<int64_t>> shapes = {{2, 4, 5, 6}, {2, 4, 4, 7}, {2, 16, 4, 6}, {2, 6, 4}};
  for (const auto& shape : shapes) {
    latents = at::zeros(shape);
    EXPECT_NE(run().find(shape_text(shape)), std::string::npos) << run();
  }
}

TEST_F(FluxForward, RefusesPromptStatesThatDoNotFit) {
  conditioning.encoder_hidden_states = at::zeros({2, 5, 16});
  EXPECT_NE(run().find("[2, 5, 16]"), std::string::npos);
  conditioning.encoder_hidden_states = at::Tensor();
  EXPECT_NE(run().find("encoder_hidden_states"), std::string::npos);
}

TEST_F(FluxForward, RefusesPooledStatesThatDoNotFit) {
  conditioning.pooled = at::zeros({1, 6});
  EXPECT_NE(run().find("pooled"), std::string::npos);
  conditioning.pooled = at::Tensor();
  EXPECT_NE(run().find("pooled"), std::string::npos);
}

TEST_F(FluxForward, AsksForGuidanceExactlyWhereTheModelIsToldIt) {
  Json schnell = small_config();
  schnell["guidance_embeds"] = false;
  EXPECT_NE(run(schnell).find("takes no guidance"), std::string::npos);
  conditioning.guidance = at::full({1}, 3.5);
  EXPECT_NE(run().find("guidance"), std::string::npos);
  conditioning.guidance = at::Tensor();
  EXPECT_NE(run().find("needs a guidance"), std::string::npos);
  EXPECT_EQ(run(schnell), "nothing was thrown");
}

}  // namespace
}  // namespace prefusion::unet
