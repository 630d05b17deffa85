// SD3Transformer2DModel against diffusers on small random networks: outputs, and gradients of every parameter.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "nn/layers.h"
#include "tests/support/tensor_near.h"
#include "tests/unet/denoiser_parity.h"
#include "tests/unet/sd3_reference.h"
#include "unet/denoiser.h"

namespace prefusion::unet {
namespace {

class SD3Parity : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path folder() const { return sd3_reference() / GetParam(); }
};

TEST_P(SD3Parity, PredictionAndAllGradientsMatchDiffusers) {
  expect_prediction_and_all_gradients(folder());
}

TEST_P(SD3Parity, CheckpointingGivesTheSameBits) {
  expect_same_bits_when_checkpointed(folder());
}

TEST_P(SD3Parity, HalfPrecisionFollowsFp32) {
  expect_half_precision_follows_fp32(folder());
}

INSTANTIATE_TEST_SUITE_P(Configs, SD3Parity,
                         testing::Values("medium", "medium_35", "large_35", "patch_one", "patch_three_one_block",
                                         "odd_crop", "positions_of_every_size", "wide_head"),
                         [](const auto& info) { return std::string(info.param); });

TEST(SD3Info, SaysWhatTheConfigSays) {
  const auto large = load_denoiser(sd3_reference() / "large_35", at::kFloat, at::kCPU);
  const DenoiserInfo& info = large->info();
  EXPECT_EQ(info.class_name, "SD3Transformer2DModel");
  EXPECT_EQ(info.component, "transformer");
  EXPECT_EQ(info.in_channels, 4);
  EXPECT_EQ(info.out_channels, 6);
  EXPECT_EQ(info.sample_size, 8);
  EXPECT_EQ(info.sample_width, 8);
  EXPECT_EQ(info.size_multiple, 2);
  EXPECT_EQ(info.cross_attention_dim, 20);
  EXPECT_EQ(info.pooled_dim, 14);
  EXPECT_TRUE(info.uses_pooled);
  EXPECT_FALSE(info.uses_time_ids);
  EXPECT_TRUE(info.is_flow);
  EXPECT_EQ(load_denoiser(sd3_reference() / "positions_of_every_size", at::kFloat, at::kCPU)->info().out_channels, 6);
}

TEST(SD3Storage, ShardsHalfPrecisionAndComputedPositionsGiveTheSameNetwork) {
  const TensorMap expected = nn::tensor_map(*load_denoiser(sd3_reference() / "storage/single", at::kFloat, at::kCPU));
  const auto load = [](const char* name) {
    return nn::tensor_map(*load_denoiser(sd3_reference() / "storage" / name, at::kFloat, at::kCPU));
  };
  const TensorMap sharded = load("sharded");
  const TensorMap half = load("bf16");
  const TensorMap completed = load("no_positions");
  ASSERT_TRUE(expected.contains("pos_embed.pos_embed"));
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(at::equal(sharded.at(name), tensor)) << name;
    EXPECT_TRUE(at::equal(half.at(name), tensor.to(at::kBFloat16).to(at::kFloat))) << name;
    EXPECT_TRUE(tests::near(completed.at(name), tensor, 1e-6)) << name;
  }
}

TEST(SD3Timesteps, IntegersAreTheSameTimesAsFloats) {
  const at::NoGradGuard no_grad;
  const auto model = load_denoiser(sd3_reference() / "medium", at::kFloat, at::kCPU);
  TensorMap tensors = read_case(sd3_reference() / "medium");
  tensors["timesteps"] = at::full({}, 500, at::kLong);
  const at::Tensor prediction = predict(*model, tensors);
  tensors["timesteps"] = at::full({2}, 500.0, at::kFloat);
  EXPECT_TRUE(at::equal(predict(*model, tensors), prediction));
}

}  // namespace
}  // namespace prefusion::unet
