#include "losses/apo_zero.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor apo_zero_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor r = params.kappa * improvement(errors);
  return at::sigmoid(-r.select(1, 0)) + at::sigmoid(r.select(1, 1));
}

}  // namespace prefusion::losses
