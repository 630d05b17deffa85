#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::kernels {

// The gated activation of feed-forward layers ("GLU Variants Improve Transformer", arXiv 2002.05202):
//   input    [..., 2 D] fp32, bf16, fp16 or fp64: values, then their gates
//   returns  [..., D] of that dtype: value * gelu(gate), gelu(x) = x Phi(x) in its exact form
// Computed in fp32 (fp64 for fp64) and rounded once.
//
// Differentiable once: the input alone is kept, the backward pass computes the activation again and writes both halves
// of the gradient in one pass. Run error when the last dimension is odd, a dtype or device does not fit, or a second
// derivative is asked for.
at::Tensor geglu(const at::Tensor& input);

// Per-device implementations on dense tensors, none empty; `output` and `grad_output` [..., D] have the input's dtype.
namespace detail {

void geglu_cpu(const at::Tensor& input, at::Tensor& output);
void geglu_cuda(const at::Tensor& input, at::Tensor& output);

void geglu_backward_cpu(const at::Tensor& input, const at::Tensor& grad_output, at::Tensor& grad_input);
void geglu_backward_cuda(const at::Tensor& input, const at::Tensor& grad_output, at::Tensor& grad_input);

}  // namespace detail
}  // namespace prefusion::kernels
