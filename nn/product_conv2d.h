#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace prefusion::nn {

// Whether a convolution is faster as a matrix product over the input's columns than as ATen's. On a CPU in fp32 it is
// where the window is one pixel, and where a large weight meets few pixels: oneDNN brings the weight into its own
// layout in every call, which then takes longer than the convolution (the low levels of a UNet at small batches). The
// same in bf16 on a processor that multiplies it. With or without gradients: a policy and its reference take one path.
bool is_faster_as_product(const at::Tensor& input, const at::Tensor& weight, int64_t stride, int64_t padding);

// at::conv2d of input [B, in, H, W], weight [out, in, k, k] and bias [out] or undefined, with its values and gradients
// (once differentiable) to rounding. The input is kept for the backward pass where the weight has a gradient, the
// columns never.
at::Tensor product_conv2d(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, int64_t stride,
                          int64_t padding);

}  // namespace prefusion::nn
