// UNet2DConditionModel against diffusers on small random networks: outputs, and gradients of every parameter.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/safetensors.h"
#include "nn/layers.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"
#include "unet/denoiser.h"

namespace prefusion::unet {
namespace {

using tests::near;

const std::filesystem::path& reference() {
  static const std::filesystem::path folder = tests::run_reference_script("make_unet.py");
  return folder;
}

Conditioning conditioning_of(const TensorMap& tensors) {
  Conditioning conditioning{.encoder_hidden_states = tensors.at("encoder_hidden_states")};
  if (tensors.contains("pooled")) {
    conditioning.pooled = tensors.at("pooled");
    conditioning.time_ids = tensors.at("time_ids");
  }
  return conditioning;
}

class UNetParity : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path folder() const { return reference() / GetParam(); }
  TensorMap tensors() const {
    TensorMap map = read_safetensors(folder() / "case.safetensors");
    for (auto& [name, tensor] : map) tensor = tensor.clone();
    return map;
  }
};

TEST_P(UNetParity, PredictionAndAllGradientsMatchDiffusers) {
  const auto model = load_denoiser(folder(), at::kFloat, at::kCPU);
  TensorMap tensors = this->tensors();
  for (const char* name : {"noisy_latents", "encoder_hidden_states", "pooled"}) {
    if (tensors.contains(name)) tensors.at(name).set_requires_grad(true);
  }
  const at::Tensor prediction =
      model->forward(tensors.at("noisy_latents"), tensors.at("timesteps"), conditioning_of(tensors));
  EXPECT_TRUE(near(prediction, tensors.at("prediction"), 1e-5));
  prediction.backward(tensors.at("cotangent"));
  for (const char* name : {"noisy_latents", "encoder_hidden_states", "pooled"}) {
    if (!tensors.contains(name)) continue;
    EXPECT_TRUE(near(tensors.at(name).grad(), tensors.at(std::string("input_grad.") + name), 1e-4)) << name;
  }
  size_t checked = 0;
  for (const auto& item : model->named_parameters()) {
    const at::Tensor expected = tensors.at("grad." + item.key());
    // A norm of single channels cancels what is added before it: those gradients are rounding noise.
    const at::Tensor found = item.value().grad().defined() ? item.value().grad() : at::zeros_like(expected);
    const double scale = std::max(1e-2, expected.abs().max().item<double>());
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-4 * scale) << item.key();
    ++checked;
  }
  EXPECT_GT(checked, 30u);
}

TEST_P(UNetParity, CheckpointingGivesTheSameBits) {
  const auto model = load_denoiser(folder(), at::kFloat, at::kCPU);
  std::vector<std::vector<at::Tensor>> grads(2);
  for (const bool recompute : {false, true}) {
    model->set_gradient_checkpointing(recompute);
    model->zero_grad();
    TensorMap tensors = this->tensors();
    Conditioning conditioning = conditioning_of(tensors);
    conditioning.encoder_hidden_states.set_requires_grad(true);
    const at::Tensor prediction = model->forward(tensors.at("noisy_latents"), tensors.at("timesteps"), conditioning);
    prediction.backward(tensors.at("cotangent"));
    for (const at::Tensor& parameter : model->parameters()) grads[recompute].push_back(parameter.grad().clone());
    grads[recompute].push_back(conditioning.encoder_hidden_states.grad());
  }
  ASSERT_EQ(grads[0].size(), grads[1].size());
  for (size_t i = 0; i < grads[0].size(); ++i) EXPECT_TRUE(at::equal(grads[0][i], grads[1][i])) << i;
}

TEST_P(UNetParity, HalfPrecisionFollowsFp32) {
  const at::NoGradGuard no_grad;
  const TensorMap tensors = this->tensors();
  const at::Tensor exact = tensors.at("prediction");
  // bf16 keeps 8 bits; what diffusers itself loses in bf16 bounds what may be lost here.
  const double reference_loss = tests::relative_error(tensors.at("prediction_bf16"), exact);
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const auto model = load_denoiser(folder(), dtype, at::kCPU);
    const at::Tensor prediction =
        model->forward(tensors.at("noisy_latents"), tensors.at("timesteps"), conditioning_of(tensors));
    EXPECT_EQ(prediction.scalar_type(), dtype);
    EXPECT_TRUE(near(prediction, exact, std::max(0.01, 2 * reference_loss)));
  }
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
