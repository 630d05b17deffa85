#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::nn {

// input weight^T + bias + scale (input A^T) B^T, of a frozen layer with a low-rank branch ("LoRA", arXiv 2106.09685):
// the branch is added by the product itself, to the output where it lies and, in the backward pass, to the input's
// gradient, so that neither is read and written once more.
//   input [..., in], weight [out, in], bias [out] or undefined, A [r, in], B [out, r]; one dtype
// Differentiable once in input, A and B. Run error when weight or bias ask for a gradient.
at::Tensor lora_linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& A,
                       const at::Tensor& B, double scale);

}  // namespace prefusion::nn
