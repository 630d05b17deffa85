// DiTTransformer2DModel against diffusers on small random networks: outputs, and gradients of every parameter. The
// references are made by tests/reference/make_dit.py.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"
#include "tests/unet/denoiser_parity.h"
#include "unet/denoiser.h"

namespace prefusion::unet {
namespace {

const std::filesystem::path& reference() {
  static const std::filesystem::path folder = tests::run_reference_script("make_dit.py");
  return folder;
}

class DitParity : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path folder() const { return reference() / GetParam(); }
};

TEST_P(DitParity, PredictionAndAllGradientsMatchDiffusers) {
  expect_prediction_and_all_gradients(folder());
}

TEST_P(DitParity, CheckpointingGivesTheSameBits) {
  expect_same_bits_when_checkpointed(folder());
}

TEST_P(DitParity, HalfPrecisionFollowsFp32) {
  expect_half_precision_follows_fp32(folder());
}

INSTANTIATE_TEST_SUITE_P(Configs, DitParity,
                         testing::Values("learned_variance", "no_variance", "odd_heads_patch_one",
                                         "patch_four_other_size", "affine_norms", "geglu", "gelu"),
                         [](const auto& info) { return std::string(info.param); });

TEST(DitLoading, FoldersOfTheFirstReleaseHoldTheSameNetwork) {
  const at::NoGradGuard no_grad;
  const auto model = load_denoiser(reference() / "old_folder", at::kFloat, at::kCPU);
  const TensorMap tensors = read_case(reference() / "old_folder");
  EXPECT_TRUE(tests::near(predict(*model, tensors), tensors.at("prediction"), 1e-5));
  EXPECT_EQ(model->info().class_name, "DiTTransformer2DModel");
}

TEST(DitInfo, SaysWhatTheConfigSays) {
  const auto model = load_denoiser(reference() / "patch_four_other_size", at::kFloat, at::kCPU);
  const DenoiserInfo& info = model->info();
  EXPECT_EQ(info.class_name, "DiTTransformer2DModel");
  EXPECT_EQ(info.component, "transformer");
  EXPECT_EQ(info.in_channels, 4);
  EXPECT_EQ(info.out_channels, 8);
  EXPECT_EQ(info.sample_size, 12);
  EXPECT_EQ(info.size_multiple, 4);
  EXPECT_EQ(info.cross_attention_dim, 11);  // a place for each class, and one for none
  EXPECT_TRUE(info.is_class_conditional);
  EXPECT_FALSE(info.uses_pooled || info.uses_time_ids || info.is_flow);
  EXPECT_EQ(load_denoiser(reference() / "no_variance", at::kFloat, at::kCPU)->info().out_channels, 3);
}

// Positions of pictures that are not square, which diffusers cannot put together: rows and columns are not exchanged.
TEST(DitForward, TakesPicturesOfEveryShape) {
  const at::NoGradGuard no_grad;
  const auto model = load_denoiser(reference() / "learned_variance", at::kFloat, at::kCPU);
  const at::Tensor classes = read_case(reference() / "learned_variance").at("encoder_hidden_states");
  const at::Tensor latents = at::randn({2, 4, 4, 12});
  const at::Tensor found = model->forward(latents, at::tensor({5, 6}), {.encoder_hidden_states = classes});
  EXPECT_EQ(found.sizes(), at::IntArrayRef({2, 8, 4, 12}));
}

}  // namespace
}  // namespace prefusion::unet
