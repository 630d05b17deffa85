#include "losses/online/prdp.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor prdp_loss(const TrajectoryBatch& batch, const ObjectiveParams& params) {
  const int64_t k = batch.log_prob.size(1);
  check_run(k >= 2, "prdp: compares trajectories of a prompt, found groups of ", k);
  const double clip = params.get("clip");
  const at::Tensor reference = batch.log_prob_ref.detach();
  const at::Tensor ratio = batch.num_elements * (batch.log_prob - reference);  // [B, k, S]
  const at::Tensor old_ratio = batch.num_elements * (batch.log_prob_old.detach() - reference);
  const at::Tensor near_ratio = at::minimum(at::maximum(ratio, old_ratio - clip), old_ratio + clip);
  const at::Tensor wanted = pair_differences(batch.reward.detach().to(ratio.dtype())) / params.kappa;
  const auto squared_error = [&wanted](const at::Tensor& log_ratio) {
    return (pair_differences(log_ratio.sum(2)) - wanted).square();  // [B, k, k]
  };
  // Each pair counts twice, an item against itself is 0.
  return at::maximum(squared_error(ratio), squared_error(near_ratio)).sum({1, 2}) / static_cast<double>(k * (k - 1));
}

}  // namespace prefusion::losses
