// What a PixArt folder may not hold, what its network may not be asked, and that errors say so by name.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "nn/user_adapter.h"
#include "tests/support/input_error.h"
#include "unet/denoiser.h"
#include "unet/pixart_config.h"

namespace prefusion::unet {
namespace {

Json small_config() {
  return parse_json(R"({"_class_name": "PixArtTransformer2DModel", "_diffusers_version": "0.28.0", "dropout": 0.0,
    "activation_fn": "gelu-approximate", "attention_bias": true, "attention_head_dim": 12, "attention_type": "default",
    "caption_channels": 10, "cross_attention_dim": 24, "in_channels": 4, "interpolation_scale": null,
    "norm_elementwise_affine": false, "norm_eps": 1e-06, "norm_num_groups": 32, "norm_type": "ada_norm_single",
    "num_attention_heads": 2, "num_embeds_ada_norm": 1000, "num_layers": 1, "out_channels": 8, "patch_size": 2,
    "sample_size": 8, "upcast_attention": false, "use_additional_conditions": true})",
                    "test");
}

TEST(PixArtConfig, DefaultsAreThoseOfDiffusers) {
  const PixArtConfig config = parse_pixart_config(Json::object(), "test");
  EXPECT_EQ(config.inner_dim(), 1152);
  EXPECT_EQ(config.num_layers, 28);
  EXPECT_EQ(config.out_channels, 8);
  EXPECT_EQ(config.text_dim(), 1152);
  EXPECT_EQ(config.sample_size, 128);
  EXPECT_EQ(config.interpolation_scale, 2.0);
  EXPECT_TRUE(config.use_additional_conditions);
  EXPECT_TRUE(config.attention_bias);
}

TEST(PixArtConfig, ReadsThatOfTheFirstRelease) {
  const PixArtConfig config = parse_pixart_config(parse_json(R"({"_class_name": "Transformer2DModel",
    "_diffusers_version": "0.22.0.dev0", "activation_fn": "gelu-approximate", "attention_bias": true,
    "attention_head_dim": 72, "attention_type": "default", "caption_channels": 4096, "cross_attention_dim": 1152,
    "double_self_attention": false, "dropout": 0.0, "in_channels": 4, "norm_elementwise_affine": false,
    "norm_eps": 1e-06, "norm_num_groups": 32, "norm_type": "ada_norm_single", "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": null, "only_cross_attention": false,
    "out_channels": 8, "patch_size": 2, "sample_size": 64, "upcast_attention": false,
    "use_linear_projection": false})",
                                                             "test"),
                                                  "test");
  EXPECT_EQ(config.text_dim(), 4096);
  EXPECT_EQ(config.interpolation_scale, 1.0);
  EXPECT_FALSE(config.use_additional_conditions);  // of the 1024-pixel model alone
}

TEST(PixArtConfig, RefusesUnsupportedValuesByName) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"norm_type", "ada_norm_zero"},
      {"attention_type", "gated"},
      {"only_cross_attention", true},
      {"double_self_attention", true},
      {"num_vector_embeds", 16},
      {"dropout", 0.1},
      {"cross_attention_dim", nullptr},
      {"cross_attention_dim", 20},
      {"num_embeds_ada_norm", nullptr},
      {"in_channels", nullptr},
      {"out_channels", 0},
      {"num_layers", 0},
      {"attention_head_dim", 5},
      {"num_attention_heads", 0},
      {"attention_head_dim", 10},
      {"caption_channels", -1},
      {"sample_size", 1},
      {"sample_size", "large"},
      {"patch_size", nullptr},
      {"patch_size", 0},
      {"activation_fn", "swiglu"},
      {"interpolation_scale", 0},
      {"use_additional_conditions", 1},
      {"norm_eps", "small"},
      {"micro_conditions", true},
  };
  for (const auto& [key, value] : cases) {
    Json config = small_config();
    config[key] = value;
    if (std::string(key) == "attention_head_dim") config.erase("caption_channels");
    const std::string message = tests::input_error_of([&] { make_denoiser(config.dump(), "transformer/config.json"); });
    EXPECT_NE(message.find(key), std::string::npos) << key << " = " << value << ": " << message;
    EXPECT_NE(message.find("transformer/config.json"), std::string::npos) << message;
  }
}

TEST(PixArtConfig, RefusesOtherTransformersOfTheOldClass) {
  Json config = small_config();
  config["_class_name"] = "Transformer2DModel";
  EXPECT_EQ(tests::input_error_of([&] { make_denoiser(config.dump(), "test"); }), "nothing was thrown");
  config["norm_type"] = "ada_norm_zero";  // a DiT, which has no captions
  EXPECT_NE(tests::input_error_of([&] { make_denoiser(config.dump(), "test"); }).find("cross_attention_dim"),
            std::string::npos);
  config["norm_type"] = "layer_norm";
  EXPECT_NE(tests::input_error_of([&] { make_denoiser(config.dump(), "test"); }).find("norm_type"), std::string::npos);
  config.erase("norm_type");
  EXPECT_NE(tests::input_error_of([&] { make_denoiser(config.dump(), "test"); }).find("norm_type"), std::string::npos);
}

class PixArtForward : public testing::Test {
 protected:
  // Everything fits; each test damages one thing.
  at::Tensor latents = at::zeros({2, 4, 4, 6});
  Conditioning conditioning{.encoder_hidden_states = at::zeros({2, 5, 10}),
                            .encoder_mask = at::ones({2, 5}, at::kBool),
                            .time_ids = at::ones({2, 3})};

  std::string run(const Json& config = small_config()) {
    const auto model = make_denoiser(config.dump(), "test");
    nn::init_weights(*model, make_torch_generator(0));
    return tests::input_error_of([&] { model->forward(latents, at::full({2}, 500), conditioning); });
  }
};

TEST_F(PixArtForward, TakesWhatFits) {
  EXPECT_EQ(run(), "nothing was thrown");
}

TEST_F(PixArtForward, RefusesLatentsThatDoNotDivideIntoPatches) {
  const std::vector<std::vector<int64_t>> shapes = {{2, 4, 5, 6}, {2, 4, 4, 7}, {2, 3, 4, 6}, {2, 6, 4}};
  for (const auto& shape : shapes) {
    latents = at::zeros(shape);
    EXPECT_NE(run().find(shape_text(shape)), std::string::npos) << run();
  }
}

TEST_F(PixArtForward, RefusesPromptStatesAndMasksThatDoNotFit) {
  conditioning.encoder_mask = at::ones({2, 4}, at::kBool);
  EXPECT_NE(run().find("encoder_mask [2, 5], found [2, 4]"), std::string::npos) << run();
  conditioning.encoder_hidden_states = at::zeros({2, 5, 24});
  EXPECT_NE(run().find("[2, 5, 24]"), std::string::npos);
  conditioning.encoder_hidden_states = at::Tensor();
  EXPECT_NE(run().find("encoder_hidden_states"), std::string::npos);
}

TEST_F(PixArtForward, AsksForSizesExactlyWhereTheModelIsToldThem) {
  Json unconditioned = small_config();
  unconditioned["use_additional_conditions"] = false;
  EXPECT_NE(run(unconditioned).find("takes no time_ids"), std::string::npos);
  conditioning.time_ids = at::ones({2, 6});
  EXPECT_NE(run().find("found [2, 6]"), std::string::npos);
  conditioning.time_ids = at::Tensor();
  EXPECT_NE(run().find("needs time_ids"), std::string::npos);
  EXPECT_EQ(run(unconditioned), "nothing was thrown");
}

TEST(PixArtWeights, NewNetworksHaveFiniteTablesOfTheirOwn) {
  const auto model = make_denoiser(small_config().dump(), "test");
  for (at::Tensor& parameter : model->parameters()) parameter.set_data(at::full_like(parameter, NAN));
  nn::init_weights(*model, make_torch_generator(0));
  const TensorMap weights = nn::tensor_map(*model);
  for (const auto& [name, tensor] : weights) EXPECT_TRUE(at::isfinite(tensor).all().item<bool>()) << name;
  EXPECT_GT(weights.at("scale_shift_table").std().item<double>(), 0.1);
  EXPECT_FALSE(at::equal(weights.at("scale_shift_table"), weights.at("transformer_blocks.0.scale_shift_table")[0]));
}

TEST(PixArtUsers, TheAttentionToTextSeesThem) {
  const at::NoGradGuard no_grad;
  const auto model = make_denoiser(small_config().dump(), "test");
  nn::init_weights(*model, make_torch_generator(0));
  auto adapter = nn::UserAdapter::create(*model, {.num_tokens = 2, .width = 6}, make_torch_generator(1));
  for (const NamedTensor& weight : adapter->projections()) at::Tensor(weight.tensor).fill_(0.3);
  Conditioning conditioning{.encoder_hidden_states = at::ones({2, 5, 10}), .time_ids = at::ones({2, 3})};
  const auto predict = [&] { return model->forward(at::ones({2, 4, 4, 4}), at::full({2}, 500), conditioning); };
  const at::Tensor nobody = predict();
  conditioning.user_states = at::ones({2, 2, 6});
  EXPECT_FALSE(at::allclose(predict(), nobody));
}

}  // namespace
}  // namespace prefusion::unet
