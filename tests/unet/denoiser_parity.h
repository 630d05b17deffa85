#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "tests/support/tensor_near.h"
#include "unet/denoiser.h"

// What every denoiser owes its reference: a case is a model folder with case.safetensors, which holds the inputs, the
// reference's `prediction` and `prediction_bf16`, a `cotangent` and the gradients it gives: `input_grad.NAME` and
// `grad.PARAMETER` (tests/reference/denoiser_case.py).
namespace prefusion::unet {

// Copies, so that they can require gradients.
inline TensorMap read_case(const std::filesystem::path& folder) {
  TensorMap tensors = read_safetensors(folder / "case.safetensors");
  for (auto& [name, tensor] : tensors) tensor = tensor.clone();
  return tensors;
}

inline Conditioning conditioning_of(const TensorMap& tensors) {
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

inline at::Tensor predict(Denoiser& model, const TensorMap& tensors) {
  return model.forward(tensors.at("noisy_latents"), tensors.at("timesteps"), conditioning_of(tensors));
}

inline void expect_prediction_and_all_gradients(const std::filesystem::path& folder) {
  const auto model = load_denoiser(folder, at::kFloat, at::kCPU);
  TensorMap tensors = read_case(folder);
  std::vector<std::string> inputs;
  for (const char* name : {"noisy_latents", "encoder_hidden_states", "pooled"}) {
    if (tensors.contains(std::string("input_grad.") + name)) inputs.push_back(name);
  }
  for (const std::string& name : inputs) tensors.at(name).set_requires_grad(true);
  const at::Tensor prediction = predict(*model, tensors);
  EXPECT_TRUE(tests::near(prediction, tensors.at("prediction"), 1e-5));
  prediction.backward(tensors.at("cotangent"));
  for (const std::string& name : inputs) {
    EXPECT_TRUE(tests::near(tensors.at(name).grad(), tensors.at("input_grad." + name), 1e-4)) << name;
  }
  size_t checked = 0;
  for (const auto& item : model->named_parameters()) {
    const at::Tensor expected = tensors.at("grad." + item.key());
    // A norm of single channels cancels what is added before it, and softmax a bias of the keys: those gradients are
    // rounding noise, which differs between processors.
    const at::Tensor found = item.value().grad().defined() ? item.value().grad() : at::zeros_like(expected);
    const double smallest = item.key().ends_with("to_k.bias") ? 0.1 : 1e-2;
    const double scale = std::max(smallest, expected.abs().max().item<double>());
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-4 * scale) << item.key();
    ++checked;
  }
  EXPECT_GT(checked, 20u);
}

inline void expect_same_bits_when_checkpointed(const std::filesystem::path& folder) {
  const auto model = load_denoiser(folder, at::kFloat, at::kCPU);
  std::vector<std::vector<at::Tensor>> grads(2);
  for (const bool recompute : {false, true}) {
    model->set_gradient_checkpointing(recompute);
    model->zero_grad();
    TensorMap tensors = read_case(folder);
    tensors.at("encoder_hidden_states").set_requires_grad(true);
    predict(*model, tensors).backward(tensors.at("cotangent"));
    for (const at::Tensor& parameter : model->parameters()) {
      grads[recompute].push_back(parameter.grad().defined() ? parameter.grad().clone() : at::zeros_like(parameter));
    }
    grads[recompute].push_back(tensors.at("encoder_hidden_states").grad());
  }
  ASSERT_EQ(grads[0].size(), grads[1].size());
  for (size_t i = 0; i < grads[0].size(); ++i) EXPECT_TRUE(at::equal(grads[0][i], grads[1][i])) << i;
}

inline void expect_half_precision_follows_fp32(const std::filesystem::path& folder) {
  const at::NoGradGuard no_grad;
  const TensorMap tensors = read_case(folder);
  const at::Tensor exact = tensors.at("prediction");
  // bf16 keeps 8 bits; what the reference itself loses in bf16 bounds what may be lost here.
  const double reference_loss = tests::relative_error(tensors.at("prediction_bf16"), exact);
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const at::Tensor prediction = predict(*load_denoiser(folder, dtype, at::kCPU), tensors);
    EXPECT_EQ(prediction.scalar_type(), dtype);
    EXPECT_TRUE(tests::near(prediction, exact, std::max(0.01, 2 * reference_loss)));
  }
}

}  // namespace prefusion::unet
