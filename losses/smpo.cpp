#include "losses/smpo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor smpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor scores = errors.scores.detach().to(errors.error.dtype());
  const at::Tensor gap = (scores.select(1, 0) - scores.select(1, 1)) / params.get("score_range");
  // 2 p - 1 without the cancellation of small gaps.
  const at::Tensor certainty = at::tanh(gap / 2);
  return log1p_exp(-params.kappa * params.get("gamma") * certainty * pair_improvement(errors));
}

}  // namespace prefusion::losses
