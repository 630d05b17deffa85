#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <string>

// Weights that are not trained, made smaller or put aside while their layer is not at work (nn/resting_weight.h). Both
// ways are for the weights of Linear and Conv2d layers inside blocks (below an entry of a list of modules); norms,
// biases, embeddings, and the first and last layers stay as they are.
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

// Replaces weights by bytes. Copies what stays, so that no mapped file is kept for its sake. Nothing of the network can
// be trained afterwards but adapters. Returns how many weights were replaced.
int64_t quantise_frozen_weights(torch::nn::Module& network, FrozenDtype dtype);

// The dtype a tensor of a network is computed with, by its checkpoint name.
using DtypeOf = std::function<at::ScalarType(const std::string& name)>;

// Leaves weights in host memory, in the dtype and mapping they were read in (bytes included), and brings the rest of a
// network that is on the CPU to dtype and device. A layer's weight comes to the device for each of its passes. On a GPU
// the host's copy is pinned memory. Nothing of the network can be trained afterwards but adapters. Returns how many
// weights stay behind.
int64_t stream_frozen_weights(torch::nn::Module& network, const DtypeOf& dtype_of, at::Device device);

}  // namespace prefusion::nn
