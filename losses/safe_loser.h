#pragma once

#include <ATen/core/Tensor.h>

// The safe gradient of Diffusion-SDPO (arXiv 2511.03317): how much of the rejected item's gradient a step may follow.
namespace prefusion::losses {

// lambda = clamp((1 - mu) * |g_chosen|^2 / (g_chosen . g_rejected), 0, 1), 1 where the product is not positive, over
// the gradients of the batch's errors in output space. Those are residuals times a common constant, so
//   |g_chosen|^2 ~ sum of chosen_square [B],  g_chosen . g_rejected ~ sum of residual_dot [B] (residual_squares,
//   GroupErrors)
// mu is the share of the chosen items' improvement to keep: 0 none of it may be lost again, 1 no rejected gradient
// along the chosen one. [] constant
at::Tensor safe_loser_factor(const at::Tensor& chosen_square, const at::Tensor& residual_dot, double mu);

// x with its gradient multiplied by the constant `factor`, which broadcasts. Shape of x.
at::Tensor scale_gradient(const at::Tensor& x, const at::Tensor& factor);

}  // namespace prefusion::losses
