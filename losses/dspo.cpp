#include "losses/dspo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor dspo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor error = errors.error.select(1, 0);
  const at::Tensor drift = errors.drift.select(1, 0);
  const at::Tensor q = 2 * params.kappa * at::sigmoid(-params.kappa * pair_improvement(errors));
  const at::Tensor cross = (error - errors.error_ref.select(1, 0).detach() + drift) / 2;
  return error - 2 * q * cross + q.square() * drift;
}

}  // namespace prefusion::losses
