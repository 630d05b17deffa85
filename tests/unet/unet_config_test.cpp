// What a UNet2DConditionModel folder may not hold, and that the error says so by name.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "nn/layers.h"
#include "tests/support/input_error.h"
#include "tests/support/temp_dir.h"
#include "unet/denoiser.h"
#include "unet/unet_config.h"

namespace prefusion::unet {
namespace {

Json small_config() {
  return parse_json(R"({"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.42.1",
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 12,
    "attention_head_dim": 2, "dropout": 0.0, "class_embed_type": null})",
                    "test");
}

std::string refusal(const Json& config) {
  return tests::input_error_of([&] { make_denoiser(config.dump(), "unet/config.json"); });
}

TEST(UNetConfig, BuildsFromAValidConfig) {
  const auto model = make_denoiser(small_config().dump(), "test");
  EXPECT_EQ(model->info().cross_attention_dim, 12);
}

TEST(UNetConfig, DefaultsAreThoseOfDiffusers) {
  const UNetConfig config = parse_unet_config(Json::object(), "test");
  ASSERT_EQ(config.down.size(), 4u);
  EXPECT_TRUE(config.down[0].has_attention);
  EXPECT_FALSE(config.down[3].has_attention);
  EXPECT_FALSE(config.up[0].has_attention);
  EXPECT_EQ(config.up[0].channels, 1280);
  EXPECT_EQ(config.up[3].num_layers, 3);
  EXPECT_EQ(config.down[1].num_heads, 8);
  EXPECT_EQ(config.cross_attention_dim, 1280);
  EXPECT_EQ(config.time_embedding_dim, 1280);
  EXPECT_EQ(config.mid, MidBlock::kCrossAttention);
}

TEST(UNetConfig, ReadsThatOfStableDiffusionXL) {
  const UNetConfig config = parse_unet_config(parse_json(R"({"_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.19.0.dev0", "act_fn": "silu", "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280], "center_input_sample": false, "class_embed_type": null,
    "class_embeddings_concat": false, "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_dim": 2048,
    "cross_attention_norm": null, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1, "dual_cross_attention": false, "encoder_hid_dim": null, "encoder_hid_dim_type": null,
    "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
    "mid_block_only_cross_attention": null, "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05, "norm_num_groups": 32, "num_attention_heads": null, "num_class_embeds": null,
    "only_cross_attention": false, "out_channels": 4, "projection_class_embeddings_input_dim": 2816,
    "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": false, "resnet_time_scale_shift": "default",
    "sample_size": 128, "time_cond_proj_dim": null, "time_embedding_act_fn": null, "time_embedding_dim": null,
    "time_embedding_type": "positional", "timestep_post_act": null, "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "upcast_attention": null,
    "use_linear_projection": true})",
                                                         "test"),
                                              "test");
  EXPECT_EQ(config.up[0].transformer_layers, (std::vector<int64_t>{10, 10, 10}));
  EXPECT_EQ(config.up[1].transformer_layers, (std::vector<int64_t>{2, 2, 2}));
  EXPECT_TRUE(config.up[2].transformer_layers.empty());
  EXPECT_EQ(config.mid_transformer_layers, 10);
  EXPECT_EQ(config.up[0].num_heads, 20);
  EXPECT_TRUE(config.has_text_time);
  EXPECT_EQ(config.sample_height, 128);
}

TEST(UNetConfig, RefusesUnsupportedValuesByName) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"dual_cross_attention", true},
      {"class_embed_type", "timestep"},
      {"num_class_embeds", 10},
      {"encoder_hid_dim", 32},
      {"encoder_hid_dim_type", "text_proj"},
      {"time_cond_proj_dim", 16},
      {"num_attention_heads", 4},
      {"time_embedding_type", "fourier"},
      {"attention_type", "gated"},
      {"addition_embed_type", "text"},
      {"class_embeddings_concat", true},
      {"dropout", 0.1},
      {"resnet_time_scale_shift", "spatial"},
      {"mid_block_type", "UNetMidBlock2DSimpleCrossAttn"},
      {"act_fn", "tanh"},
      {"norm_num_groups", nullptr},
      {"cross_attention_dim", {12, 16}},
      {"attention_head_dim", {2, 2, 2}},
      {"layers_per_block", {1}},
      {"layers_per_block", 0},
      {"block_out_channels", {8}},
      {"only_cross_attention", {true}},
      {"transformer_layers_per_block", {{1}, {1}}},
      {"transformer_layers_per_block", "many"},
      {"sample_size", {8}},
      {"norm_num_groups", "four"},
      {"sample_speed", 3},
  };
  for (const auto& [key, value] : cases) {
    Json config = small_config();
    config[key] = value;
    // Only the coarsest stage has no attention; give it some where the lists must agree.
    if (std::string(key) == "cross_attention_dim") config["up_block_types"][0] = "CrossAttnUpBlock2D";
    const std::string message = refusal(config);
    EXPECT_NE(message.find(key), std::string::npos) << key << " = " << value << ": " << message;
    EXPECT_NE(message.find("unet/config.json"), std::string::npos) << message;
  }
}

TEST(UNetConfig, RefusesUnsupportedBlockTypesByName) {
  for (const char* type :
       {"AttnDownBlock2D", "SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D", "KDownBlock2D"}) {
    Json config = small_config();
    config["down_block_types"][1] = type;
    EXPECT_NE(refusal(config).find(type), std::string::npos);
  }
  Json config = small_config();
  config["up_block_types"][0] = "SkipUpBlock2D";
  EXPECT_NE(refusal(config).find("SkipUpBlock2D"), std::string::npos);
}

TEST(UNetConfig, RefusesAnotherClassByName) {
  Json config = small_config();
  config["_class_name"] = "UNet3DConditionModel";
  EXPECT_NE(refusal(config).find("UNet3DConditionModel"), std::string::npos);
}

TEST(UNetConfig, RefusesBrokenJson) {
  EXPECT_NE(tests::input_error_of([] { make_denoiser("{\"in_channels\": ", "broken"); }).find("broken"),
            std::string::npos);
  EXPECT_NE(tests::input_error_of([] { make_denoiser("[1]", "a list"); }).find("a list"), std::string::npos);
}

TEST(UNetForward, RefusesShapesThatDoNotFit) {
  const auto model = make_denoiser(small_config().dump(), "test");
  nn::init_weights(*model, make_torch_generator(0));
  const at::Tensor timesteps = at::zeros({1}, at::kLong);
  const auto run = [&](const at::Tensor& latents, const at::Tensor& states) {
    return tests::input_error_of([&] { model->forward(latents, timesteps, {.encoder_hidden_states = states}); });
  };
  EXPECT_NE(run(at::zeros({1, 3, 8, 8}), at::zeros({1, 5, 12})).find("[1, 3, 8, 8]"), std::string::npos);
  EXPECT_NE(run(at::zeros({1, 4, 8, 8}), at::zeros({1, 5, 16})).find("[1, 5, 16]"), std::string::npos);
  EXPECT_NE(run(at::zeros({1, 4, 8, 8}), at::Tensor()).find("encoder_hidden_states"), std::string::npos);
}

TEST(UNetForward, AsksForPooledStatesWhereTheModelNeedsThem) {
  Json config = small_config();
  config["addition_embed_type"] = "text_time";
  config["addition_time_embed_dim"] = 4;
  config["projection_class_embeddings_input_dim"] = 10 + 24;
  const auto model = make_denoiser(config.dump(), "test");
  nn::init_weights(*model, make_torch_generator(0));
  Conditioning conditioning{.encoder_hidden_states = at::zeros({1, 5, 12})};
  const auto run = [&] {
    return tests::input_error_of([&] {
      model->forward(at::zeros({1, 4, 8, 8}), at::zeros({1}, at::kLong), conditioning);
    });
  };
  EXPECT_NE(run().find("time_ids"), std::string::npos);
  conditioning.pooled = at::zeros({1, 9});
  conditioning.time_ids = at::zeros({1, 6});
  EXPECT_NE(run().find("expected [1, 34]"), std::string::npos);
  conditioning.pooled = at::zeros({1, 10});
  EXPECT_EQ(run(), "nothing was thrown");
}

TEST(UNetLoading, ListsAllKeysThatDoNotFitInOneMessage) {
  const tests::TempDir folder;
  const auto model = make_denoiser(small_config().dump(), "test");
  nn::init_weights(*model, make_torch_generator(0));
  TensorMap weights = nn::tensor_map(*model);
  weights.erase("conv_in.bias");
  weights.erase("up_blocks.1.attentions.0.proj_in.weight");
  weights["mid_block.extra.weight"] = at::zeros({2});
  weights["conv_out.weight"] = at::zeros({4, 8, 1, 1});
  write_file(folder / "config.json", small_config().dump());
  write_safetensors(folder / "diffusion_pytorch_model.safetensors", weights);
  const std::string message = tests::input_error_of([&] { load_denoiser(folder.path(), at::kFloat, at::kCPU); });
  for (const char* key : {"conv_in.bias", "up_blocks.1.attentions.0.proj_in.weight", "mid_block.extra.weight",
                          "conv_out.weight (expected [4, 8, 3, 3], found [4, 8, 1, 1])"}) {
    EXPECT_NE(message.find(key), std::string::npos) << message;
  }
}

TEST(UNetLoading, SaysWhichFileIsMissing) {
  const tests::TempDir folder;
  EXPECT_NE(tests::input_error_of([&] { load_denoiser(folder.path(), at::kFloat, at::kCPU); }).find("config.json"),
            std::string::npos);
  write_file(folder / "config.json", small_config().dump());
  EXPECT_NE(tests::input_error_of([&] {
              load_denoiser(folder.path(), at::kFloat, at::kCPU);
            }).find("diffusion_pytorch_model"),
            std::string::npos);
}

}  // namespace
}  // namespace prefusion::unet
