// What an AutoencoderKL folder may not hold, and that the error says so by name.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "nn/channels_last.h"
#include "nn/layers.h"
#include "tests/support/input_error.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::vae {
namespace {

Json small_config() {
  return parse_json(R"({"_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "norm_num_groups": 4, "latents_mean": null})",
                    "test");
}

TEST(AutoencoderConfig, FillsInTheDefaultsOfDiffusers) {
  const auto model = make_autoencoder(small_config().dump(), "test");
  EXPECT_EQ(model->scale_factor_px(), 2);
  EXPECT_DOUBLE_EQ(model->config().scaling_factor, 0.18215);
  EXPECT_EQ(model->config().shift_factor, 0.0);
  EXPECT_TRUE(model->config().force_upcast);
  EXPECT_EQ(model->config().sample_size, 32);
}

TEST(Autoencoder, IsTheSameInChannelsLastMemory) {
  const at::NoGradGuard no_grad;
  const auto model = make_autoencoder(small_config().dump(), "test");
  nn::init_weights(*model, make_torch_generator(1));
  const at::Tensor pixels = philox_randn({2, 3, 10, 14}, DrawKey{7, 1, 0}, RandomPurpose::kOther);
  const at::Tensor mean = model->encode(pixels).mean, decoded = model->decode(mean);
  nn::to_channels_last(*model);
  EXPECT_TRUE(tests::near(model->encode(pixels).mean, mean, 2e-5));
  EXPECT_TRUE(tests::near(model->decode(mean), decoded, 2e-5));
  EXPECT_TRUE(nn::is_channels_last(model->decode(mean)));
}

TEST(AutoencoderConfig, RefusesUnsupportedValuesByName) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"latents_mean", {0.1, 0.2, 0.3, 0.4}},
      {"latents_std", {1, 1, 1, 1}},
      {"down_block_types", {"DownEncoderBlock2D", "AttnDownEncoderBlock2D"}},
      {"up_block_types", {"UpDecoderBlock2D"}},
      {"block_out_channels", Json::array()},
      {"block_out_channels", {8, -8}},
      {"act_fn", "tanh"},
      {"norm_num_groups", 0},
      {"scaling_factor", 0.0},
      {"sample_size", "big"},
      {"latent_channels", "four"},
      {"temporal_compression", 4},
      {"_class_name", "AutoencoderTiny"},
  };
  for (const auto& [key, value] : cases) {
    Json config = small_config();
    config[key] = value;
    const std::string message = tests::input_error_of([&] { make_autoencoder(config.dump(), "vae/config.json"); });
    EXPECT_NE(message.find(key), std::string::npos) << key << " = " << value << ": " << message;
    EXPECT_NE(message.find("vae/config.json"), std::string::npos) << message;
  }
}

TEST(AutoencoderShapes, RefusesWhatDoesNotFit) {
  const auto model = make_autoencoder(small_config().dump(), "test");
  nn::init_weights(*model, make_torch_generator(0));
  EXPECT_NE(tests::input_error_of([&] {
              model->encode(at::zeros({1, 4, 8, 8}));
            }).find("[1, 4, 8, 8]"),
            std::string::npos);
  EXPECT_NE(tests::input_error_of([&] { model->encode(at::zeros({1, 3, 1, 8})); }).find("8x1"), std::string::npos);
  EXPECT_NE(tests::input_error_of([&] {
              model->decode(at::zeros({1, 3, 8, 8}));
            }).find("[1, 3, 8, 8]"),
            std::string::npos);
}

TEST(AutoencoderLoading, ListsAllKeysThatDoNotFitInOneMessage) {
  const tests::TempDir folder;
  const auto model = make_autoencoder(small_config().dump(), "test");
  nn::init_weights(*model, make_torch_generator(0));
  TensorMap weights = nn::tensor_map(*model);
  weights.erase("quant_conv.bias");
  weights["encoder.extra"] = at::zeros({2});
  weights["decoder.conv_out.weight"] = at::zeros({3, 8, 1, 1});
  write_file(folder / "config.json", small_config().dump());
  write_safetensors(folder / "diffusion_pytorch_model.safetensors", weights);
  const std::string message = tests::input_error_of([&] { load_autoencoder(folder.path(), at::kFloat, at::kCPU); });
  for (const char* key : {"quant_conv.bias", "encoder.extra", "decoder.conv_out.weight"}) {
    EXPECT_NE(message.find(key), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace prefusion::vae
