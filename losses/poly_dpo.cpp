#include "losses/poly_dpo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor poly_dpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor u = params.kappa * pair_improvement(errors);
  return log1p_exp(-u) + params.get("alpha") * at::sigmoid(-u);
}

}  // namespace prefusion::losses
