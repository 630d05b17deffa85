#include "losses/simpo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor simpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor difference = errors.error.select(1, 1) - errors.error.select(1, 0);
  return log1p_exp(params.get("gamma") - params.kappa * difference);
}

}  // namespace prefusion::losses
