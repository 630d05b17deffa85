#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace prefusion::kernels {

// The end of a residual branch in diffusion transformers (adaLN-Zero, arXiv 2212.09748): states + gate * output.
//   states, output  [B, N, D] fp32, bf16, fp16 or fp64
//   gate            [B, D] of that dtype; may be a view, rows any distance apart
//   returns         [B, N, D] of that dtype
//
// Differentiable once in all three. The gradients of output and gate are one pass; where the gate needs none, output is
// not kept. The sum over N has an order that depends on the shape alone. Run error when shapes, dtypes or devices do
// not fit, or a second derivative of the gate is asked for.
at::Tensor gated_residual(const at::Tensor& states, const at::Tensor& output, const at::Tensor& gate);

// Per-device implementations; none of the tensors is empty. `acc` is fp32 (fp64 for fp64).
namespace detail {

// Rows whose share of the gate's gradient is one sum.
constexpr int64_t kGateChunk = 64;

struct GatedResidualGradArgs {
  at::Tensor grad;         // [B, N, D], dense
  at::Tensor output;       // [B, N, D], dense
  at::Tensor gate;         // [B, D], elements of a row adjacent
  at::Tensor grad_output;  // [B, N, D], dense, to fill: grad * gate
  at::Tensor partial;      // [B, ceil(N / kGateChunk), D] acc, to fill: sums of grad * output
};

void gated_residual_backward_cpu(const GatedResidualGradArgs& args);
void gated_residual_backward_cuda(const GatedResidualGradArgs& args);

}  // namespace detail
}  // namespace prefusion::kernels
