#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace prefusion::kernels {

// The modulated layer norm of diffusion transformers (adaLN, arXiv 2212.09748): layer norm over the last dimension
// without weight and bias, times 1 + scale, plus shift.
//   input         [B, N, D] fp32, bf16, fp16 or fp64
//   scale, shift  [B, D] of that dtype; may be views, rows any distance apart
//   returns       [B, N, D] of that dtype
// Computed in fp32 (fp64 for fp64), rounded where the composition stores: the norm, 1 + scale, and the result.
//
// Differentiable once in all three: the input is kept, with a mean and a deviation for each row. The sums over N have
// an order that depends on the shape alone. Run error when shapes, dtypes or devices do not fit, D is 0, or a second
// derivative is asked for.
at::Tensor layer_norm_modulate(const at::Tensor& input, const at::Tensor& scale, const at::Tensor& shift,
                               double eps = 1e-6);

// Per-device implementations; none of the tensors is empty. `acc` is fp32 (fp64 for fp64).
namespace detail {

struct LayerNormModulateArgs {
  at::Tensor input;   // [B, N, D], dense
  at::Tensor scale;   // [B, D], elements of a row adjacent
  at::Tensor shift;   // the same; not needed backward
  at::Tensor output;  // [B, N, D], dense; not needed backward
  at::Tensor mean;    // [B, N] acc, of each row
  at::Tensor rstd;    // [B, N] acc, 1 / sqrt(variance + eps)
  double eps = 1e-6;
};

// Writes output, mean and rstd.
void layer_norm_modulate_cpu(const LayerNormModulateArgs& args);
void layer_norm_modulate_cuda(const LayerNormModulateArgs& args);

// Rows whose share of the gradients of scale and shift is one sum.
constexpr int64_t kModulateChunk = 64;

struct LayerNormModulateGradArgs {
  LayerNormModulateArgs forward;
  at::Tensor grad_output;  // [B, N, D], dense
  at::Tensor grad_input;   // [B, N, D], dense
  at::Tensor grad_scale;   // [B, D] acc, dense; undefined when neither it nor grad_shift is wanted
  at::Tensor grad_shift;
  at::Tensor partial;  // [B, ceil(N / kModulateChunk), 2, D] acc, scratch; undefined with grad_scale
};

void layer_norm_modulate_backward_cpu(const LayerNormModulateGradArgs& args);
void layer_norm_modulate_backward_cuda(const LayerNormModulateGradArgs& args);

}  // namespace detail
}  // namespace prefusion::kernels
