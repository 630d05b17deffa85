#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

// Operations that keep less for the backward pass than their ATen compositions, with the same values and gradients
// (once differentiable). Fine-tuning with an adapter holds a frozen network's activations, and these are most of them.
namespace prefusion::nn {

// Whether ATen would keep what a frozen weight's layer has no use for: gradients flow, but not into the weight.
bool keeps_too_much(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias);

// at::conv2d of a weight [out, in, k, k] and bias that need no gradient: the input is not kept.
at::Tensor frozen_conv2d(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, int64_t stride,
                         int64_t padding);

// silu(group_norm(input)), input [B, C, ...]: the input is kept, the normalised values are computed again.
at::Tensor group_norm_silu(const at::Tensor& input, int64_t num_groups, const at::Tensor& weight,
                           const at::Tensor& bias, double eps);

}  // namespace prefusion::nn
