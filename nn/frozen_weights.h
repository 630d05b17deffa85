#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <string>

// Weights that are not trained in a byte each, for adapters beside large networks. Products stay in the dtype of the
// activations: a layer's weight is read into it for the forward pass and once more for the backward pass.
namespace prefusion::nn {

enum class FrozenDtype {
  kInt8,  // -127 .. 127 in equal steps
  kFp8,   // e4m3: 3 bits of fraction, finer near zero
};

// "int8" or "fp8"; usage error, naming `flag`, for others.
FrozenDtype parse_frozen_dtype(const std::string& name, const std::string& flag);

struct QuantisedWeight {
  at::Tensor weight;  // of the weight's shape, int8 or float8_e4m3fn
  at::Tensor scale;   // [out] fp32: weight * scale is the value
};

// Each output channel is scaled so that its largest absolute value is the largest of the dtype, then rounded to the
// nearest. weight [out, ...]
QuantisedWeight quantise_weight(const at::Tensor& weight, FrozenDtype dtype);
at::Tensor dequantise_weight(const at::Tensor& weight, const at::Tensor& scale, at::ScalarType dtype);

// The name of the buffer in which a layer keeps its scale beside its `weight`.
inline constexpr const char* kWeightScale = "weight_scale";

// Replaces the weights of all Linear and Conv2d layers inside blocks (below a child of the network whose name ends in
// "block" or "blocks") by bytes; norms, biases, embeddings, and the first and last layers stay as they are. Copies what
// stays, so that no mapped file is kept for its sake. Nothing of the network can be trained afterwards but adapters.
// Returns how many weights were replaced.
int64_t quantise_frozen_weights(torch::nn::Module& network, FrozenDtype dtype);

// What layers with such weights compute; gradients reach the input alone, and nothing but the bytes is kept for them.
bool is_quantised(const at::Tensor& weight);
at::Tensor quantised_linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& scale,
                            const at::Tensor& bias);
at::Tensor quantised_conv2d(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& scale,
                            const at::Tensor& bias, int64_t stride, int64_t padding);

}  // namespace prefusion::nn
