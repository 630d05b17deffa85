// The transformers of FLUX.1 and PixArt against diffusers on small random networks: outputs in three dtypes, and
// gradients of every input and parameter. The references are made by tests/reference/make_flux_pixart.py.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/rng.h"
#include "core/safetensors.h"
#include "nn/layers.h"
#include "nn/lora.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"
#include "unet/denoiser.h"

namespace prefusion::unet {
namespace {

using tests::near;

const std::filesystem::path& reference() {
  static const std::filesystem::path folder = tests::run_reference_script("make_flux_pixart.py");
  return folder;
}

constexpr const char* kInputs[] = {"noisy_latents", "encoder_hidden_states", "pooled"};

Conditioning conditioning_of(const TensorMap& tensors) {
  const auto find = [&](const char* name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? at::Tensor() : found->second;
  };
  return {.encoder_hidden_states = find("encoder_hidden_states"),
          .encoder_mask = find("encoder_mask"),
          .pooled = find("pooled"),
          .time_ids = find("time_ids"),
          .guidance = find("guidance")};
}

TensorMap read_case(const std::string& name) {
  TensorMap map = read_safetensors(reference() / name / "case.safetensors");
  for (auto& [key, tensor] : map) tensor = tensor.clone();
  return map;
}

at::Tensor predict(Denoiser& model, const TensorMap& tensors) {
  return model.forward(tensors.at("noisy_latents"), tensors.at("timesteps"), conditioning_of(tensors));
}

class TransformerParity : public testing::TestWithParam<const char*> {
 protected:
  std::shared_ptr<Denoiser> load(at::ScalarType dtype) const {
    return load_denoiser(reference() / GetParam(), dtype, at::kCPU);
  }
};

TEST_P(TransformerParity, PredictionAndAllGradientsMatchDiffusers) {
  const auto model = load(at::kFloat);
  TensorMap tensors = read_case(GetParam());
  for (const char* name : kInputs) {
    if (tensors.contains(name)) tensors.at(name).set_requires_grad(true);
  }
  const at::Tensor prediction = predict(*model, tensors);
  EXPECT_TRUE(near(prediction, tensors.at("prediction"), 1e-5));
  prediction.backward(tensors.at("cotangent"));
  for (const char* name : kInputs) {
    if (!tensors.contains(name)) continue;
    EXPECT_TRUE(near(tensors.at(name).grad(), tensors.at(std::string("input_grad.") + name), 1e-4)) << name;
  }
  for (const auto& item : model->named_parameters()) {
    const at::Tensor expected = tensors.at("grad." + item.key());
    const at::Tensor found = item.value().grad().defined() ? item.value().grad() : at::zeros_like(expected);
    // Biases of keys shift all scores of a query alike: their gradients are rounding noise.
    const double floor = item.key().ends_with("to_k.bias") ? 0.1 : 1e-2;
    const double scale = std::max(floor, expected.abs().max().item<double>());
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-4 * scale) << item.key();
  }
}

TEST_P(TransformerParity, CheckpointingGivesTheSameBits) {
  const auto model = load(at::kFloat);
  std::vector<std::vector<at::Tensor>> found(2);
  for (const bool recompute : {false, true}) {
    model->set_gradient_checkpointing(recompute);
    model->zero_grad();
    TensorMap tensors = read_case(GetParam());
    for (const char* name : {"noisy_latents", "encoder_hidden_states"}) tensors.at(name).set_requires_grad(true);
    const at::Tensor prediction = predict(*model, tensors);
    prediction.backward(tensors.at("cotangent"));
    found[recompute] = {prediction.detach(), tensors.at("noisy_latents").grad(),
                        tensors.at("encoder_hidden_states").grad()};
    for (const at::Tensor& parameter : model->parameters()) {
      if (parameter.grad().defined()) found[recompute].push_back(parameter.grad().clone());
    }
  }
  ASSERT_EQ(found[0].size(), found[1].size());
  for (size_t i = 0; i < found[0].size(); ++i) EXPECT_TRUE(at::equal(found[0][i], found[1][i])) << i;
}

TEST_P(TransformerParity, HalfPrecisionIsThatOfDiffusers) {
  const at::NoGradGuard no_grad;
  const TensorMap tensors = read_case(GetParam());
  for (const auto& [dtype, name] : {std::pair{at::kBFloat16, "prediction_bf16"}, {at::kHalf, "prediction_fp16"}}) {
    const at::Tensor expected = tensors.at(name);
    const at::Tensor prediction = predict(*load(dtype), tensors);
    EXPECT_EQ(prediction.scalar_type(), dtype);
    // Both round in the same places, but sum in another order: a value that is rounded the other way early on moves the
    // prediction about as far as rounding does in all.
    const double cost = tests::relative_error(expected, tensors.at("prediction"));
    EXPECT_TRUE(near(prediction, expected, std::max(1.25 * cost, 1e-3))) << name;
  }
}

TEST_P(TransformerParity, LoraOnTheUsualLayersTakesGradients) {
  const auto model = load(at::kFloat);
  const nn::LoraConfig config{.rank = 2, .alpha = 2};  // to_q, to_k, to_v, to_out.0
  const auto adapter = nn::LoraAdapter::create(*model, config, make_torch_generator(1));
  for (const NamedTensor& parameter : adapter->parameters()) {
    at::NoGradGuard no_grad;
    at::Tensor(parameter.tensor).normal_(0.0, 0.3, make_torch_generator(2));
  }
  adapter->set_requires_grad(true);
  const TensorMap tensors = read_case(GetParam());
  const at::Tensor adapted = predict(*model, tensors);
  adapted.sum().backward();
  for (const NamedTensor& parameter : adapter->parameters()) {
    EXPECT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
  }
  const nn::AdapterOff off(*model);
  EXPECT_TRUE(near(predict(*model, tensors), tensors.at("prediction"), 1e-5));
  EXPECT_FALSE(near(adapted, tensors.at("prediction"), 1e-3));
}

TEST_P(TransformerParity, AnnouncesItsTimestepsAndTakesOneForAll) {
  const at::NoGradGuard no_grad;
  const auto model = load(at::kFloat);
  TensorMap tensors = read_case(GetParam());
  at::Tensor announced;
  model->on_timesteps([&](const at::Tensor& timesteps) { announced = timesteps.clone(); });
  predict(*model, tensors);
  EXPECT_TRUE(at::equal(announced, tensors.at("timesteps")));
  tensors["timesteps"] = at::full({2}, 500, at::kLong);
  const at::Tensor both = predict(*model, tensors);
  tensors["timesteps"] = at::full({}, 500.0, at::kDouble);
  EXPECT_TRUE(at::equal(predict(*model, tensors), both));
  EXPECT_EQ(announced.sizes(), at::IntArrayRef({2}));
}

INSTANTIATE_TEST_SUITE_P(Flux, TransformerParity,
                         testing::Values("flux_schnell", "flux_dev", "flux_odd_heads", "flux_uneven_axes",
                                         "flux_image_axis", "flux_single_only", "flux_double_only",
                                         "flux_more_out_channels", "flux_patch"),
                         [](const auto& info) { return std::string(info.param); });

INSTANTIATE_TEST_SUITE_P(PixArt, TransformerParity,
                         testing::Values("pixart_alpha", "pixart_alpha_1024", "pixart_sigma", "pixart_sizes",
                                         "pixart_odd_heads", "pixart_no_variance", "pixart_no_captions",
                                         "pixart_other_layers", "pixart_gelu"),
                         [](const auto& info) { return std::string(info.param); });

TEST(PixArtLoading, FoldersOfTheFirstReleaseHoldTheSameNetwork) {
  const at::NoGradGuard no_grad;
  const auto model = load_denoiser(reference() / "pixart_old_folder", at::kFloat, at::kCPU);
  const TensorMap tensors = read_case("pixart_old_folder");
  EXPECT_TRUE(near(predict(*model, tensors), tensors.at("prediction"), 1e-5));
  EXPECT_EQ(model->info().class_name, "PixArtTransformer2DModel");
}

TEST(TransformerInfo, SaysWhatTheConfigOfPixArtSays) {
  const auto alpha = load_denoiser(reference() / "pixart_alpha", at::kFloat, at::kCPU);
  EXPECT_EQ(alpha->info().class_name, "PixArtTransformer2DModel");
  EXPECT_EQ(alpha->info().in_channels, 4);
  EXPECT_EQ(alpha->info().out_channels, 8);
  EXPECT_EQ(alpha->info().sample_size, 8);
  EXPECT_EQ(alpha->info().cross_attention_dim, 20);
  EXPECT_FALSE(alpha->info().uses_pooled);
  EXPECT_FALSE(alpha->info().uses_time_ids);
  EXPECT_FALSE(alpha->info().is_flow);
  EXPECT_EQ(alpha->info().component, "transformer");
  const auto with_sizes = load_denoiser(reference() / "pixart_sizes", at::kFloat, at::kCPU);
  EXPECT_TRUE(with_sizes->info().uses_time_ids);
  EXPECT_EQ(with_sizes->num_time_ids(/*pooled_width=*/0), 3);
  EXPECT_EQ(load_denoiser(reference() / "pixart_no_variance", at::kFloat, at::kCPU)->info().size_multiple, 4);
  const auto plain = load_denoiser(reference() / "pixart_no_captions", at::kFloat, at::kCPU);
  EXPECT_EQ(plain->info().out_channels, 3);
  EXPECT_EQ(plain->info().cross_attention_dim, 20);
}

TEST(TransformerInfo, SaysWhatTheConfigOfFluxSays) {
  const auto dev = load_denoiser(reference() / "flux_dev", at::kFloat, at::kCPU);
  EXPECT_EQ(dev->info().class_name, "FluxTransformer2DModel");
  EXPECT_EQ(dev->info().in_channels, 4);
  EXPECT_EQ(dev->info().out_channels, 4);
  EXPECT_EQ(dev->info().sample_size, 128);
  EXPECT_EQ(dev->info().cross_attention_dim, 20);
  EXPECT_TRUE(dev->info().uses_pooled);
  EXPECT_TRUE(dev->info().uses_guidance);
  EXPECT_TRUE(dev->info().is_flow);
  EXPECT_EQ(dev->info().pooled_dim, 12);
  EXPECT_EQ(dev->info().size_multiple, 2);
  EXPECT_FALSE(load_denoiser(reference() / "flux_schnell", at::kFloat, at::kCPU)->info().uses_guidance);
  EXPECT_EQ(load_denoiser(reference() / "flux_more_out_channels", at::kFloat, at::kCPU)->info().out_channels, 8);
}

}  // namespace
}  // namespace prefusion::unet
