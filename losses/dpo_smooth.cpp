#include "losses/dpo_smooth.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor dpo_smooth_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor u = params.kappa * pair_improvement(errors);
  const double eps = params.get("label_smoothing");
  return (1 - eps) * log1p_exp(-u) + eps * log1p_exp(u);
}

}  // namespace prefusion::losses
