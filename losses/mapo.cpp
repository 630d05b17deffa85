#include "losses/mapo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor bernoulli_function(const at::Tensor& z) {
  // Near 0 both the quotient (0/0) and its gradient (a difference of two terms of size 1/z) lose their digits, so the
  // series takes over: z / (exp(z) - 1) = 1 - z/2 + sum of B_2n z^2n / (2n)!; below 1/2 the first term left out is
  // under 1.3e-13.
  constexpr double kSeriesBelow = 0.5;
  const at::Tensor is_small = z < kSeriesBelow;
  // Each branch gets a harmless argument where it is not taken: where() multiplies its gradient there by zero, and zero
  // times infinity is not zero.
  const at::Tensor small = at::where(is_small, z, at::zeros_like(z));
  const at::Tensor large = at::where(is_small, at::ones_like(z), z);
  const at::Tensor square = small.square();
  const at::Tensor series =
      1 - small / 2 +
      square * (1.0 / 12 +
                square * (-1.0 / 720 + square * (1.0 / 30240 + square * (-1.0 / 1209600 + square * (1.0 / 47900160)))));
  // With exp(-z), which cannot overflow.
  const at::Tensor quotient = large * at::exp(-large) / -at::expm1(-large);
  return at::where(is_small, series, quotient);
}

at::Tensor mapo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor h = bernoulli_function(params.get("snr") * errors.error);
  const at::Tensor logit = params.get("T") * (h.select(1, 0) - h.select(1, 1));
  return errors.error.select(1, 0) + params.get("weight") * log1p_exp(-logit);
}

}  // namespace prefusion::losses
