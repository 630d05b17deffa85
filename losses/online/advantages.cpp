#include "losses/online/advantages.h"

#include <ATen/ATen.h>

namespace prefusion::losses {
namespace {

at::Tensor mean_of(const at::Tensor& x, bool is_per_group) {
  return is_per_group ? x.mean(1, /*keepdim=*/true) : x.mean();
}

}  // namespace

at::Tensor standardised_advantage(const at::Tensor& reward, AdvantageScope scope, double clip, double eps) {
  const at::Tensor r = reward.detach();
  const at::Tensor centred = r - mean_of(r, scope != AdvantageScope::kBatch);
  const bool has_group_std = scope == AdvantageScope::kGroup;
  const at::Tensor variance = mean_of((r - mean_of(r, has_group_std)).square(), has_group_std);
  return (centred / (variance.sqrt() + eps)).clamp(-clip, clip);
}

}  // namespace prefusion::losses
