#include "losses/cpo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor cpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor chosen = errors.error.select(1, 0);
  return log1p_exp(params.kappa * (chosen - errors.error.select(1, 1))) + params.get("alpha") * chosen;
}

}  // namespace prefusion::losses
