#include "losses/rpo_cross.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor rpo_cross_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor s = improvement(errors);
  const at::Tensor distance = errors.prompt_distance.detach().to(s.dtype());
  const at::Tensor weight = at::softmax(-distance / params.get("tau"), 1);  // [B, B]
  const at::Tensor u = params.kappa * (s.select(1, 0).unsqueeze(1) - s.select(1, 1).unsqueeze(0));
  return (weight * log1p_exp(-u)).sum(1);
}

}  // namespace prefusion::losses
