#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::kernels {

// The per-item error e of every objective: mean over all dimensions but the first of (prediction - target)^2.
//   prediction  [N, C, H, W] (any rank >= 1), fp32, bf16 or fp16
//   target      same shape and device; read as fp32
//   returns     [N] fp32
// The prediction is widened before the subtraction, so policy and reference errors of equal predictions are equal to
// the bit. The order of summation depends on the shape and memory format alone, never on the number of threads. fp64
// predictions are computed and returned in fp64 (for gradient checks).
//
// Differentiable in `prediction` (dtype kept): one pass, grad * 2/d * (prediction - target), d = C*H*W. Run error when
// a shape or dtype does not fit, items are empty, `target` requires a gradient, or a second derivative is asked for.
at::Tensor item_error(const at::Tensor& prediction, const at::Tensor& target);

// Per-device implementations on dense tensors of equal layout; `num_elements` is d. `acc` below is fp32 (fp64 for
// fp64).
namespace detail {

// error [N] acc from prediction and target [N * d]; target is acc.
void item_error_cpu(const at::Tensor& prediction, const at::Tensor& target, at::Tensor& error, int64_t num_elements);
void item_error_cuda(const at::Tensor& prediction, const at::Tensor& target, at::Tensor& error, int64_t num_elements);

// grad_prediction [N * d] in the prediction's dtype from grad_error [N] acc.
void item_error_backward_cpu(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& grad_error,
                             at::Tensor& grad_prediction, int64_t num_elements);
void item_error_backward_cuda(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& grad_error,
                              at::Tensor& grad_prediction, int64_t num_elements);

}  // namespace detail
}  // namespace prefusion::kernels
