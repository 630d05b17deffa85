#include "losses/exo.h"

#include <ATen/ATen.h>

#include <cmath>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor exo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor u = params.kappa * pair_improvement(errors);
  const double eps = params.get("label_smoothing");
  return at::sigmoid(u) * (-log1p_exp(-u) - std::log1p(-eps)) + at::sigmoid(-u) * (-log1p_exp(u) - std::log(eps));
}

}  // namespace prefusion::losses
