#include "losses/bco.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor bco_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor r = params.kappa * improvement(errors) - params.get("delta");
  return log1p_exp(-r.select(1, 0)) + log1p_exp(r.select(1, 1));
}

}  // namespace prefusion::losses
