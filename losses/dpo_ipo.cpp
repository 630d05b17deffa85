#include "losses/dpo_ipo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor dpo_ipo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  return (params.kappa * pair_improvement(errors) - 0.5).square();
}

}  // namespace prefusion::losses
