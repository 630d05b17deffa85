#include "losses/diffusion_dpo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor diffusion_dpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  return log1p_exp(-params.kappa * pair_improvement(errors));
}

}  // namespace prefusion::losses
