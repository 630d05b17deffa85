#include "losses/ranklist.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor ranklist_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor phi = preference(errors);
  const at::Tensor order = order_best_first(phi);
  const at::Tensor sorted_phi = phi.gather(1, order);
  const at::Tensor logits = params.kappa * improvement(errors).gather(1, order);
  const int64_t k = logits.size(1);
  const auto strides = std::min(k - 1, static_cast<int64_t>(params.get("strides")));
  at::Tensor loss = at::zeros_like(logits.select(1, 0));
  for (int64_t stride = 1; stride <= strides; ++stride) {
    const auto better = [&](const at::Tensor& x) { return x.slice(1, 0, k - stride); };
    const auto worse = [&](const at::Tensor& x) { return x.slice(1, stride); };
    const at::Tensor is_preferred = (better(sorted_phi) > worse(sorted_phi)).to(logits.dtype());
    loss = loss + (is_preferred * log1p_exp(worse(logits) - better(logits))).sum(1);
  }
  return loss;
}

}  // namespace prefusion::losses
