// AutoencoderKL against diffusers on small random networks.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/safetensors.h"
#include "nn/layers.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::vae {
namespace {

using tests::near;

const std::filesystem::path& reference() {
  static const std::filesystem::path folder = tests::run_reference_script("make_vae.py");
  return folder;
}

TensorMap tensors_of(const std::string& name) {
  TensorMap map = read_safetensors(reference() / name / "case.safetensors");
  for (auto& [key, tensor] : map) tensor = tensor.clone();
  return map;
}

class AutoencoderParity : public testing::TestWithParam<const char*> {};

// The loss of the reference script, backpropagated.
void backpropagate(AutoencoderKL& model, TensorMap& tensors) {
  tensors.at("pixel_values").set_requires_grad(true);
  tensors.at("latents").set_requires_grad(true);
  const Posterior posterior = model.encode(tensors.at("pixel_values"));
  const at::Tensor decoded = model.decode(tensors.at("latents"));
  EXPECT_TRUE(near(posterior.mean, tensors.at("mean"), 1e-5));
  EXPECT_TRUE(near(posterior.std, tensors.at("std"), 1e-5));
  EXPECT_TRUE(near(posterior.logvar, tensors.at("logvar"), 1e-5));
  EXPECT_TRUE(near(decoded, tensors.at("decoded"), 1e-5));
  const at::Tensor loss = (posterior.mean * tensors.at("mean_cotangent")).sum() +
                          (posterior.std * tensors.at("std_cotangent")).sum() +
                          (decoded * tensors.at("decoded_cotangent")).sum();
  loss.backward();
}

TEST_P(AutoencoderParity, PosteriorPixelsAndAllGradientsMatchDiffusers) {
  const auto model = load_autoencoder(reference() / GetParam(), at::kFloat, at::kCPU);
  for (const bool recompute : {false, true}) {
    TensorMap tensors = tensors_of(GetParam());
    model->zero_grad();
    model->set_gradient_checkpointing(recompute);
    backpropagate(*model, tensors);
    for (const char* name : {"pixel_values", "latents"}) {
      EXPECT_TRUE(near(tensors.at(name).grad(), tensors.at(std::string("input_grad.") + name), 1e-4)) << name;
    }
    for (const auto& item : model->named_parameters()) {
      const at::Tensor expected = tensors.at("grad." + item.key());
      ASSERT_TRUE(item.value().grad().defined()) << item.key();
      // The bias of a key projection has no effect: its gradient is rounding noise.
      const double scale = std::max(1e-2, expected.abs().max().item<double>());
      EXPECT_LT((item.value().grad() - expected).abs().max().item<double>(), 1e-4 * scale) << item.key();
    }
  }
}

TEST_P(AutoencoderParity, ScalingMatchesDiffusersAndInverts) {
  const auto model = load_autoencoder(reference() / GetParam(), at::kFloat, at::kCPU);
  const TensorMap tensors = tensors_of(GetParam());
  const at::Tensor latents = model->to_latents(tensors.at("mean"));
  EXPECT_TRUE(near(latents, tensors.at("scaled_mean"), 1e-6));
  EXPECT_TRUE(near(model->to_unscaled_latents(latents), tensors.at("mean"), 1e-5));
}

TEST_P(AutoencoderParity, Bfloat16FollowsFp32) {
  const at::NoGradGuard no_grad;
  const auto model = load_autoencoder(reference() / GetParam(), at::kBFloat16, at::kCPU);
  EXPECT_EQ(model->dtype(), at::kBFloat16);
  const TensorMap tensors = tensors_of(GetParam());
  const Posterior posterior = model->encode(tensors.at("pixel_values"));
  const at::Tensor decoded = model->decode(tensors.at("latents"));
  EXPECT_EQ(posterior.mean.scalar_type(), at::kFloat);
  EXPECT_EQ(decoded.scalar_type(), at::kFloat);
  EXPECT_TRUE(near(posterior.mean, tensors.at("mean"), 0.05));
  EXPECT_TRUE(near(decoded, tensors.at("decoded"), 0.05));
}

INSTANTIATE_TEST_SUITE_P(Configs, AutoencoderParity,
                         testing::Values("v1", "four_stages", "flow_no_quant", "no_attention", "one_stage",
                                         "odd_picture"),
                         [](const auto& info) { return std::string(info.param); });

TEST(AutoencoderLoading, AcceptsDeprecatedAttentionNames) {
  const TensorMap expected = nn::tensor_map(*load_autoencoder(reference() / "v1", at::kFloat, at::kCPU));
  const TensorMap found = nn::tensor_map(*load_autoencoder(reference() / "deprecated", at::kFloat, at::kCPU));
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, tensor] : expected) EXPECT_TRUE(at::equal(found.at(name), tensor)) << name;
}

TEST(AutoencoderLoading, RunsInFp32WhereFp16Overflows) {
  EXPECT_EQ(load_autoencoder(reference() / "v1", at::kHalf, at::kCPU)->dtype(), at::kFloat);
  EXPECT_EQ(load_autoencoder(reference() / "four_stages", at::kHalf, at::kCPU)->dtype(), at::kHalf);
}

TEST(AutoencoderTiling, JoinsTheTilesOfDiffusers) {
  const at::NoGradGuard no_grad;
  const auto model = load_autoencoder(reference() / "tiled", at::kFloat, at::kCPU);
  const TensorMap tensors = tensors_of("tiled");
  model->set_tiling(Tiling::kOn);
  EXPECT_TRUE(near(model->encode(tensors.at("pixel_values")).mean, tensors.at("mean"), 1e-5));
  EXPECT_TRUE(near(model->decode(tensors.at("latents")), tensors.at("decoded"), 1e-5));
  EXPECT_GT(tests::relative_error(tensors.at("whole"), tensors.at("decoded")), 1e-3);
}

// A tile's brightness depends on what is in it, so neighbours may differ everywhere.
TEST(AutoencoderTiling, LeavesNoEdgeWhereTilesMeet) {
  int64_t count = 0;
  const at::Tensor joined = map_tiles(at::zeros({1, 1, 40, 44}), {16, 16}, [&count](const at::Tensor& tile) {
    return tile + static_cast<double>(++count % 3);  // at most 2 apart
  });
  ASSERT_EQ(count, 16);
  for (const int64_t dim : {2, 3}) EXPECT_LE(joined.diff(1, dim).abs().max().item<double>(), 2.0 / 4 + 1e-6);
}

TEST(AutoencoderTiling, AutoBeginsAt2048Pixels) {
  const auto model = load_autoencoder(reference() / "tiled", at::kFloat, at::kCPU);
  EXPECT_TRUE(model->uses_tiles(2048, 2048) && model->uses_tiles(1024, 4096));
  EXPECT_FALSE(model->uses_tiles(2048, 2040) || model->uses_tiles(1024, 1024));
  model->set_tiling(Tiling::kOn);
  EXPECT_TRUE(model->uses_tiles(24, 16));
  EXPECT_FALSE(model->uses_tiles(16, 16));
  model->set_tiling(Tiling::kOff);
  EXPECT_FALSE(model->uses_tiles(4096, 4096));
}

TEST(AutoencoderTiling, AutoLeavesOrdinaryPicturesWhole) {
  const at::NoGradGuard no_grad;
  const auto model = load_autoencoder(reference() / "tiled", at::kFloat, at::kCPU);
  const TensorMap tensors = tensors_of("tiled");
  for (const Tiling tiling : {Tiling::kAuto, Tiling::kOff}) {
    model->set_tiling(tiling);
    EXPECT_TRUE(near(model->decode(tensors.at("latents")), tensors.at("whole"), 1e-5));
  }
}

}  // namespace
}  // namespace prefusion::vae
