#include "losses/discopop.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor discopop_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor u = params.kappa * pair_improvement(errors);
  const at::Tensor z = u / params.get("tau");
  // m * exp(-u) with one exponent, which is never large: log m <= u / tau <= u where u is negative.
  return at::sigmoid(-z) * log1p_exp(-u) + at::exp(-log1p_exp(-z) - u);
}

}  // namespace prefusion::losses
