#include "losses/snpo.h"

#include <ATen/ATen.h>

#include <cmath>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor snpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const double lambda = params.get("lambda");
  const at::Tensor u = params.kappa * pair_improvement(errors);
  return log1p_exp(at::logaddexp(std::log(lambda) - u, at::full_like(u, std::log1p(-lambda))));
}

}  // namespace prefusion::losses
