#include "losses/sppo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor sppo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor r = params.kappa * improvement(errors);
  return (r.select(1, 0) - 0.5).square() + (r.select(1, 1) + 0.5).square();
}

}  // namespace prefusion::losses
