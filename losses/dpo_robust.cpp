#include "losses/dpo_robust.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor dpo_robust_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor u = params.kappa * pair_improvement(errors);
  const double eps = params.get("label_smoothing");
  return ((1 - eps) * log1p_exp(-u) - eps * log1p_exp(u)) / (1 - 2 * eps);
}

}  // namespace prefusion::losses
