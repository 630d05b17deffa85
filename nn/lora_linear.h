#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "nn/resting_weight.h"

namespace prefusion::nn {

// A linear layer that is not trained.
struct FrozenLinear {
  at::Tensor weight;                             // [out, in], where it is simply there
  std::shared_ptr<const RestingWeight> resting;  // else how it comes
  at::Tensor bias;                               // [out] or undefined

  // In the dtype of the activations.
  at::Tensor value(at::ScalarType dtype) const { return resting ? resting->value(dtype) : weight; }
};

// input weight^T + bias + scale (input A^T) B^T, of a frozen layer with a low-rank branch ("LoRA", arXiv 2106.09685):
// the branch is added by the product itself, to the output where it lies and, in the backward pass, to the input's
// gradient, so that neither is read and written once more.
//   input [..., in], A [r, in], B [out, r]; one dtype
// Differentiable once in input, A and B. Run error when the layer asks for a gradient.
at::Tensor lora_linear(const at::Tensor& input, const FrozenLinear& layer, const at::Tensor& A, const at::Tensor& B,
                       double scale);

}  // namespace prefusion::nn
