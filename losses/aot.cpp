#include "losses/aot.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {
namespace {

at::Tensor ascending(const at::Tensor& x) {
  return std::get<1>(at::sort(x.detach(), /*stable=*/true, /*dim=*/0, /*descending=*/false));
}

}  // namespace

at::Tensor aot_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const bool is_paired = params.choice("pairing") == "paired";
  const at::Tensor s = improvement(errors);
  const at::Tensor upper = is_paired ? errors.error.select(1, 1) - errors.error.select(1, 0) : s.select(1, 0);
  const at::Tensor lower =
      is_paired ? (errors.error_ref.select(1, 1) - errors.error_ref.select(1, 0)).detach() : s.select(1, 1);
  const at::Tensor upper_order = ascending(upper);
  const at::Tensor u = params.kappa * (upper.index_select(0, upper_order) - lower.index_select(0, ascending(lower)));
  const at::Tensor loss = smoothed_logistic(u, params.get("label_smoothing"));
  return at::zeros_like(loss).scatter(0, upper_order, loss);
}

}  // namespace prefusion::losses
