#include "losses/dpo_hinge.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor dpo_hinge_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  return at::relu(1 - params.kappa * pair_improvement(errors));
}

}  // namespace prefusion::losses
