#include "losses/linear.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor linear_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const double eta = params.get("eta");
  const at::Tensor weight = (0.5 - params.kappa * pair_improvement(errors).detach()).clamp(eta, 1 - eta);
  return weight * (errors.error.select(1, 0) - errors.error.select(1, 1));
}

}  // namespace prefusion::losses
