#include "losses/capo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor capo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor reward = preference(errors);
  // Each item also meets itself; that half win cancels in the gap.
  const at::Tensor wins = at::sigmoid(params.get("scale") * pair_differences(reward)).sum(2);
  const at::Tensor order = order_best_first(reward);
  const auto gap = [&order](const at::Tensor& x) {
    const at::Tensor sorted = x.gather(1, order);
    return sorted.select(1, 0) - sorted.select(1, sorted.size(1) - 1);
  };
  return (gap(wins) / static_cast<double>(reward.size(1) - 1) - params.kappa * gap(improvement(errors))).square();
}

}  // namespace prefusion::losses
