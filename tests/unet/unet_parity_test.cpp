// UNet2DConditionModel against diffusers on small random networks: outputs, and gradients of every parameter.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/safetensors.h"
#include "nn/layers.h"
#include "tests/support/python_reference.h"
#include "tests/unet/denoiser_parity.h"
#include "unet/denoiser.h"

namespace prefusion::unet {
namespace {

const std::filesystem::path& reference() {
  static const std::filesystem::path folder = tests::run_reference_script("make_unet.py");
  return folder;
}

class UNetParity : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path folder() const { return reference() / GetParam(); }
};

TEST_P(UNetParity, PredictionAndAllGradientsMatchDiffusers) {
  expect_prediction_and_all_gradients(folder());
}

TEST_P(UNetParity, CheckpointingGivesTheSameBits) {
  expect_same_bits_when_checkpointed(folder());
}

TEST_P(UNetParity, HalfPrecisionFollowsFp32) {
  expect_half_precision_follows_fp32(folder());
}

INSTANTIATE_TEST_SUITE_P(Configs, UNetParity,
                         testing::Values("v1", "odd_size", "v2_linear_heads_list", "uneven_heads",
                                         "uneven_heads_linear", "xl_text_time", "scale_shift_only_cross", "no_mid",
                                         "resnet_mid", "lists", "all_attention", "depth_one"),
                         [](const auto& info) { return std::string(info.param); });

TEST(UNetInfo, SaysWhatTheConfigSays) {
  const auto v2 = load_denoiser(reference() / "v2_linear_heads_list", at::kFloat, at::kCPU);
  EXPECT_EQ(v2->info().class_name, "UNet2DConditionModel");
  EXPECT_EQ(v2->info().sample_size, 8);
  EXPECT_EQ(v2->info().sample_width, 12);
  EXPECT_EQ(v2->info().cross_attention_dim, 24);
  EXPECT_FALSE(v2->info().uses_pooled);
  EXPECT_TRUE(load_denoiser(reference() / "xl_text_time", at::kFloat, at::kCPU)->info().uses_pooled);
  EXPECT_EQ(load_denoiser(reference() / "no_mid", at::kFloat, at::kCPU)->info().in_channels, 9);
  EXPECT_EQ(load_denoiser(reference() / "resnet_mid", at::kFloat, at::kCPU)->info().out_channels, 8);
}

TEST(UNetStorage, ShardsAndVariantsHoldTheSameNetwork) {
  const auto single = load_denoiser(reference() / "storage/single", at::kFloat, at::kCPU);
  const auto sharded = load_denoiser(reference() / "storage/sharded", at::kFloat, at::kCPU);
  const auto variant = load_denoiser(reference() / "storage/variant", at::kFloat, at::kCPU);
  const TensorMap expected = nn::tensor_map(*single);
  const TensorMap from_shards = nn::tensor_map(*sharded);
  const TensorMap from_variant = nn::tensor_map(*variant);
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(at::equal(from_shards.at(name), tensor)) << name;
    EXPECT_TRUE(at::equal(from_variant.at(name), tensor.to(at::kHalf).to(at::kFloat))) << name;
  }
}

TEST(UNetTimesteps, OneTimestepServesTheWholeBatch) {
  const at::NoGradGuard no_grad;
  const auto model = load_denoiser(reference() / "v1", at::kFloat, at::kCPU);
  const TensorMap tensors = read_safetensors(reference() / "v1/case.safetensors");
  const Conditioning conditioning{.encoder_hidden_states = tensors.at("encoder_hidden_states")};
  const at::Tensor latents = tensors.at("noisy_latents");
  const at::Tensor both = model->forward(latents, at::full({2}, 500, at::kLong), conditioning);
  EXPECT_TRUE(at::equal(model->forward(latents, at::full({}, 500, at::kLong), conditioning), both));
  EXPECT_TRUE(at::equal(model->forward(latents, at::full({1}, 500.0, at::kDouble), conditioning), both));
}

}  // namespace
}  // namespace prefusion::unet
