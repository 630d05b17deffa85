#include "losses/safe_loser.h"

#include <ATen/ATen.h>

namespace prefusion::losses {

at::Tensor safe_loser_factor(const at::Tensor& chosen_square, const at::Tensor& residual_dot, double mu) {
  const at::Tensor square = chosen_square.detach().sum();
  const at::Tensor product = residual_dot.detach().sum().to(square.dtype());
  return at::where(product > 0, (1 - mu) * square / product, at::ones_like(square)).clamp(0, 1);
}

at::Tensor scale_gradient(const at::Tensor& x, const at::Tensor& factor) {
  return x.detach() + factor * (x - x.detach());
}

}  // namespace prefusion::losses
