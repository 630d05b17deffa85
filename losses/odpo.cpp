#include "losses/odpo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor odpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor reward = reward_or_preference(errors);
  const at::Tensor margin = params.get("alpha") * (reward.select(1, 0) - reward.select(1, 1));
  return log1p_exp(margin - params.kappa * pair_improvement(errors));
}

}  // namespace prefusion::losses
