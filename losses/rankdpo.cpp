#include "losses/rankdpo.h"

#include <ATen/ATen.h>

#include "losses/dcg_pair_loss.h"
#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor rankdpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor phi = preference(errors);
  return dcg_pair_loss(phi, order_best_first(phi), improvement(errors), params.kappa);
}

}  // namespace prefusion::losses
