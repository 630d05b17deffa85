// What an SD3Transformer2DModel folder may not hold, and inputs it cannot take; the errors say so by name.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "tests/support/input_error.h"
#include "unet/denoiser.h"
#include "unet/sd3_config.h"

namespace prefusion::unet {
namespace {

Json small_config() {
  return parse_json(R"({"_class_name": "SD3Transformer2DModel", "_diffusers_version": "0.42.1", "sample_size": 8,
    "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 3,
    "joint_attention_dim": 20, "caption_projection_dim": 24, "pooled_projection_dim": 14, "pos_embed_max_size": 6,
    "dual_attention_layers": [], "qk_norm": null})",
                    "test");
}

std::string refusal(const Json& config) {
  return tests::input_error_of([&] { make_denoiser(config.dump(), "transformer/config.json"); });
}

std::shared_ptr<Denoiser> small_model() {
  const auto model = make_denoiser(small_config().dump(), "test");
  nn::init_weights(*model, make_torch_generator(0));
  return model;
}

TEST(SD3Config, DefaultsAreThoseOfDiffusers) {
  const SD3Config config = parse_sd3_config(Json::object(), "test");
  EXPECT_EQ(config.sample_size, 128);
  EXPECT_EQ(config.patch_size, 2);
  EXPECT_EQ(config.in_channels, 16);
  EXPECT_EQ(config.out_channels, 16);
  EXPECT_EQ(config.inner_dim(), 1152);
  EXPECT_EQ(config.joint_attention_dim, 4096);
  EXPECT_EQ(config.pooled_projection_dim, 2048);
  EXPECT_EQ(config.pos_embed_max_size, 96);
  EXPECT_EQ(config.is_dual, std::vector<bool>(18, false));
  EXPECT_FALSE(config.has_qk_norm);
}

TEST(SD3Config, ReadsThatOfStableDiffusion35Medium) {
  const SD3Config config = parse_sd3_config(parse_json(R"({"_class_name": "SD3Transformer2DModel",
    "_diffusers_version": "0.31.0", "attention_head_dim": 64, "caption_projection_dim": 1536,
    "dual_attention_layers": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], "in_channels": 16,
    "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 24, "out_channels": 16, "patch_size": 2,
    "pooled_projection_dim": 2048, "pos_embed_max_size": 384, "qk_norm": "rms_norm", "sample_size": 128})",
                                                       "test"),
                                            "test");
  EXPECT_EQ(config.is_dual.size(), 24u);
  EXPECT_TRUE(config.is_dual[12]);
  EXPECT_FALSE(config.is_dual[13]);
  EXPECT_TRUE(config.has_qk_norm);
  EXPECT_EQ(config.pos_embed_max_size, 384);
}

TEST(SD3Config, NullSaysNoGridAndAsManyChannelsOutAsIn) {
  Json json = small_config();
  json["out_channels"] = nullptr;
  json["pos_embed_max_size"] = nullptr;
  json["in_channels"] = 7;
  const SD3Config config = parse_sd3_config(json, "test");
  EXPECT_EQ(config.out_channels, 7);
  EXPECT_EQ(config.pos_embed_max_size, 0);
}

TEST(SD3Config, RefusesUnsupportedValuesByName) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"qk_norm", "layer_norm"},
      {"caption_projection_dim", 20},
      {"num_attention_heads", 0},
      {"attention_head_dim", 7.5},
      {"num_layers", 0},
      {"num_layers", "two"},
      {"patch_size", -1},
      {"patch_size", 9},
      {"pos_embed_max_size", 0},
      {"out_channels", 0},
      {"joint_attention_dim", -4},
      {"pooled_projection_dim", 0},
      {"dual_attention_layers", 3},
      {"dual_attention_layers", {"first"}},
      {"sample_size", {8, 8}},
      {"force_zeros_for_pooled_projection", true},
  };
  for (const auto& [key, value] : cases) {
    Json config = small_config();
    config[key] = value;
    const std::string message = refusal(config);
    EXPECT_NE(message.find(key), std::string::npos) << key << " = " << value << ": " << message;
    EXPECT_NE(message.find("transformer/config.json"), std::string::npos) << message;
  }
  Json narrow = small_config();
  narrow["num_attention_heads"] = 1;
  narrow["attention_head_dim"] = narrow["caption_projection_dim"] = 6;
  EXPECT_NE(refusal(narrow).find("multiple of 4"), std::string::npos);
}

TEST(SD3Forward, RefusesInputsThatDoNotFit) {
  const auto model = small_model();
  const at::Tensor latents = at::zeros({1, 4, 8, 8}), states = at::zeros({1, 5, 20}), pooled = at::zeros({1, 14});
  const auto run = [&](const at::Tensor& noisy_latents, const at::Tensor& encoder_hidden_states,
                       const at::Tensor& pooled_states) {
    return tests::input_error_of([&] {
      model->forward(noisy_latents, at::zeros({1}, at::kLong),
                     {.encoder_hidden_states = encoder_hidden_states, .pooled = pooled_states});
    });
  };
  EXPECT_EQ(run(latents, states, pooled), "nothing was thrown");
  EXPECT_NE(run(at::zeros({1, 3, 8, 8}), states, pooled).find("[1, 3, 8, 8]"), std::string::npos);
  EXPECT_NE(run(at::zeros({1, 4, 8, 7}), states, pooled).find("8 x 7 do not divide into patches of 2"),
            std::string::npos);
  EXPECT_NE(run(at::zeros({1, 4, 8, 14}), states, pooled).find("4 x 7 patches are larger than the 6 x 6"),
            std::string::npos);
  EXPECT_NE(run(latents, at::zeros({1, 5, 16}), pooled).find("[1, 5, 16]"), std::string::npos);
  EXPECT_NE(run(latents, at::Tensor(), pooled).find("encoder_hidden_states"), std::string::npos);
  EXPECT_NE(run(latents, states, at::Tensor()).find("pooled [1, 14], found none"), std::string::npos);
  EXPECT_NE(run(latents, states, at::zeros({2, 14})).find("pooled [1, 14], found [2, 14]"), std::string::npos);
}

TEST(SD3Forward, AnnouncesTheTimestepsOfEveryItem) {
  const auto model = small_model();
  at::Tensor heard;
  model->on_timesteps([&](const at::Tensor& timesteps) { heard = timesteps.clone(); });
  model->forward(at::zeros({2, 4, 4, 4}), at::full({1}, 250.5),
                 {.encoder_hidden_states = at::zeros({2, 5, 20}), .pooled = at::zeros({2, 14})});
  EXPECT_TRUE(at::equal(heard, at::full({2}, 250.5)));
}

}  // namespace
}  // namespace prefusion::unet
