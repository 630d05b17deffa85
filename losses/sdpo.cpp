#include "losses/sdpo.h"

#include <ATen/ATen.h>

#include "losses/diffusion_dpo.h"
#include "losses/group_math.h"
#include "losses/safe_loser.h"

namespace prefusion::losses {

at::Tensor sdpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor chosen = errors.error.select(1, 0);
  const at::Tensor factor =
      safe_loser_factor(residual_squares(errors).select(1, 0), errors.residual_dot, params.get("mu"));
  GroupErrors safe = errors;
  safe.error = at::stack({chosen, scale_gradient(errors.error.select(1, 1), factor)}, 1);
  return diffusion_dpo_loss(safe, params);
}

}  // namespace prefusion::losses
