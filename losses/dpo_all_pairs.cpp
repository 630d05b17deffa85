#include "losses/dpo_all_pairs.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor dpo_all_pairs_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor pairs = preferred_pairs(preference(errors));
  const at::Tensor losses = log1p_exp(-params.kappa * pair_differences(improvement(errors)));
  return (pairs * losses).sum({1, 2}) / pairs.sum({1, 2}).clamp_min(1);
}

}  // namespace prefusion::losses
