#include "losses/nca.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor nca_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor r = params.kappa * improvement(errors);
  const at::Tensor chosen = r.select(1, 0);
  return log1p_exp(-chosen) + 0.5 * (log1p_exp(chosen) + log1p_exp(r.select(1, 1)));
}

}  // namespace prefusion::losses
