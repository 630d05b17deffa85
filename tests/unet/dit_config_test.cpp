// What a DiT folder may not hold, what its network may not be asked, and that errors say so by name.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "tests/support/input_error.h"
#include "unet/denoiser.h"
#include "unet/dit_config.h"

namespace prefusion::unet {
namespace {

Json small_config() {
  return parse_json(R"({"_class_name": "DiTTransformer2DModel", "_diffusers_version": "0.30.0", "dropout": 0.0,
    "activation_fn": "gelu-approximate", "attention_bias": true, "attention_head_dim": 12, "in_channels": 4,
    "norm_elementwise_affine": false, "norm_eps": 1e-05, "norm_num_groups": 32, "norm_type": "ada_norm_zero",
    "num_attention_heads": 2, "num_embeds_ada_norm": 6, "num_layers": 1, "out_channels": 8, "patch_size": 2,
    "sample_size": 8, "upcast_attention": false})",
                    "test");
}

TEST(DitConfig, DefaultsAreThoseOfDiffusers) {
  const DitConfig config = parse_dit_config(Json::object(), "test");
  EXPECT_EQ(config.inner_dim(), 1152);
  EXPECT_EQ(config.num_layers, 28);
  EXPECT_EQ(config.out_channels, 4);
  EXPECT_EQ(config.num_classes, 1000);
  EXPECT_EQ(config.sample_size, 32);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_TRUE(config.attention_bias);
}

TEST(DitConfig, RefusesUnsupportedValuesByName) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"norm_type", "ada_norm_single"},
      {"dropout", 0.1},
      {"num_embeds_ada_norm", nullptr},
      {"num_embeds_ada_norm", 0},
      {"in_channels", nullptr},
      {"out_channels", 0},
      {"num_layers", 0},
      {"num_attention_heads", 0},
      {"attention_head_dim", 5},
      {"sample_size", 1},
      {"sample_size", nullptr},
      {"patch_size", 0},
      {"activation_fn", "swiglu"},
      {"norm_eps", "small"},
      {"caption_channels", 20},
      {"class_dropout", 0.1},
  };
  for (const auto& [key, value] : cases) {
    Json config = small_config();
    config[key] = value;
    const std::string message = tests::input_error_of([&] { make_denoiser(config.dump(), "transformer/config.json"); });
    EXPECT_NE(message.find(key), std::string::npos) << key << " = " << value << ": " << message;
    EXPECT_NE(message.find("transformer/config.json"), std::string::npos) << message;
  }
}

TEST(DitConfig, RefusesOtherNetworksOfTheOldClass) {
  Json config = small_config();
  config["_class_name"] = "Transformer2DModel";
  EXPECT_EQ(tests::input_error_of([&] { make_denoiser(config.dump(), "test"); }), "nothing was thrown");
  const std::vector<std::pair<const char*, Json>> cases = {
      {"cross_attention_dim", 20},    {"caption_channels", 20},        {"num_vector_embeds", 16},
      {"only_cross_attention", true}, {"double_self_attention", true}, {"attention_type", "gated"}};
  for (const auto& [key, value] : cases) {
    Json other = config;
    other[key] = value;
    const std::string message = tests::input_error_of([&] { make_denoiser(other.dump(), "test"); });
    EXPECT_NE(message.find(key), std::string::npos) << key << ": " << message;
  }
}

class DitForwardInputs : public testing::Test {
 protected:
  // Everything fits; each test damages one thing.
  at::Tensor latents = at::zeros({2, 4, 4, 6});
  Conditioning conditioning{.encoder_hidden_states = at::zeros({2, 1, 7})};

  std::string run() {
    const auto model = make_denoiser(small_config().dump(), "test");
    nn::init_weights(*model, make_torch_generator(0));
    return tests::input_error_of([&] { model->forward(latents, at::full({2}, 500), conditioning); });
  }
};

TEST_F(DitForwardInputs, AreTakenWhereTheyFit) {
  EXPECT_EQ(run(), "nothing was thrown");
}

TEST_F(DitForwardInputs, MustDivideIntoPatches) {
  const std::vector<std::vector<int64_t>> shapes = {{2, 4, 5, 6}, {2, 4, 4, 7}, {2, 3, 4, 6}, {2, 6, 4}};
  for (const auto& shape : shapes) {
    latents = at::zeros(shape);
    EXPECT_NE(run().find(shape_text(shape)), std::string::npos) << run();
  }
}

TEST_F(DitForwardInputs, MustHaveAPlaceForEachClass) {
  const std::vector<std::vector<int64_t>> shapes = {{2, 1, 6}, {2, 2, 7}, {1, 1, 7}, {2, 7}};
  for (const auto& shape : shapes) {
    conditioning.encoder_hidden_states = at::zeros(shape);
    EXPECT_NE(run().find("expected classes [2, 1, 7], found " + shape_text(shape)), std::string::npos) << run();
  }
  conditioning.encoder_hidden_states = at::Tensor();
  EXPECT_NE(run().find("found none"), std::string::npos) << run();
}

}  // namespace
}  // namespace prefusion::unet
