#include "losses/rankdpo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor rankdpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor phi = preference(errors);
  const at::Tensor order = order_best_first(phi);
  const at::Tensor s = improvement(errors).gather(1, order);  // best first, [B, k]
  const at::Tensor gain = at::exp2(phi.gather(1, order)) - 1;
  // Sorted, the item at position p has rank p + 1 and discount 1 / ln(2 + p).
  const at::Tensor discount = at::arange(2, 2 + s.size(1), s.options()).log().reciprocal();
  // [B, k, k]: row the better item i, column the worse item j; the rest is below the diagonal.
  const at::Tensor weight = (gain.unsqueeze(2) - gain.unsqueeze(1)) * (discount.unsqueeze(1) - discount.unsqueeze(0));
  const at::Tensor losses = log1p_exp(-params.kappa * (s.unsqueeze(2) - s.unsqueeze(1)));
  return (at::triu(weight, /*diagonal=*/1) * losses).sum({1, 2});
}

}  // namespace prefusion::losses
