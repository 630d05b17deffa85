#include "losses/plackett_luce.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor plackett_luce_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor order = order_best_first(preference(errors));
  const at::Tensor logits = params.kappa * improvement(errors).gather(1, order);  // [B, k]
  // Column j of the flipped cumulative sum is log sum_{m >= j} exp(logit_m).
  const at::Tensor log_sums = at::logcumsumexp(logits.flip(1), 1).flip(1);
  return (log_sums - logits).slice(1, 0, logits.size(1) - 1).sum(1);
}

}  // namespace prefusion::losses
