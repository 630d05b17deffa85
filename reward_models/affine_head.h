#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "core/safetensors.h"

namespace prefusion::reward_models {

// weight . features + bias: what a head of linear layers without activations between them amounts to.
struct AffineHead {
  at::Tensor weight;  // fp64 [D]
  double bias = 0;

  // [N, D] -> fp32 [N], computed in fp64.
  at::Tensor operator()(const at::Tensor& features) const;

  // (head - mean) / std as one head.
  AffineHead standardized(double mean, double std) const;
};

// Multiplies out, in fp64, the layers PREFIX + N + ".weight"/".bias" for the given N, the last of which has one output.
// Input error naming the layer whose shapes do not fit or that is missing.
AffineHead collapse_linear_layers(const TensorMap& weights, const std::string& prefix, const std::vector<int>& layers,
                                  const std::string& where);

}  // namespace prefusion::reward_models
