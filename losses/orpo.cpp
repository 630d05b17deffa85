#include "losses/orpo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor orpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor chosen = errors.error.select(1, 0);
  return chosen + params.get("weight") * log1p_exp(params.get("K") * (chosen - errors.error.select(1, 1)));
}

}  // namespace prefusion::losses
