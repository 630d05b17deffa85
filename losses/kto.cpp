#include "losses/kto.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor kto_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor label = desirability(errors, "kto");
  const at::Tensor g = improvement(errors);  // [B, k]
  const at::Tensor offset = g.detach().mean().clamp_min(0);
  // 1 - sigmoid(z) as sigmoid(-z), which keeps its digits when z is large.
  return at::sigmoid((1 - 2 * label) * params.kappa * (g - offset)).mean(1);
}

}  // namespace prefusion::losses
