#include "losses/online/d3po.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor d3po_loss(const TrajectoryBatch& batch, const ObjectiveParams& params) {
  check_run(batch.log_prob.size(1) == 2, "d3po, spo: train on pairs, found groups of ", batch.log_prob.size(1));
  const double clip = params.get("clip");
  // Clamping the logarithm is clamping the ratio, and cannot overflow.
  const at::Tensor log_ratio =
      (batch.log_prob - batch.log_prob_ref.detach()).clamp(std::log1p(-clip), std::log1p(clip));
  const at::Tensor u = params.kappa * (log_ratio.select(1, 0) - log_ratio.select(1, 1));  // [B, S]
  return log1p_exp(-u).mean(1);
}

}  // namespace prefusion::losses
