#include "losses/dpo_smooth.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor dpo_smooth_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  return smoothed_logistic(params.kappa * pair_improvement(errors), params.get("label_smoothing"));
}

}  // namespace prefusion::losses
