#include "losses/dcg_pair_loss.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor dcg_pair_loss(const at::Tensor& phi, const at::Tensor& order, const at::Tensor& s, double kappa) {
  const at::Tensor gain = at::exp2(phi.gather(1, order)) - 1;
  // Sorted, the item at position p has rank p + 1 and discount 1 / ln(2 + p).
  const at::Tensor discount = at::arange(2, 2 + s.size(1), s.options()).log().reciprocal();
  // [B, k, k]: row the better item i, column the worse item j; the clamp leaves nothing of the other direction.
  const at::Tensor weight = pair_differences(gain).clamp_min(0) * (discount.unsqueeze(1) - discount.unsqueeze(0)).abs();
  return (weight * log1p_exp(-kappa * pair_differences(s.gather(1, order)))).sum({1, 2});
}

}  // namespace prefusion::losses
