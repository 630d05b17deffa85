#include "losses/online/ppo_clip.h"

#include <ATen/ATen.h>

namespace prefusion::losses {
namespace {

constexpr double kLargestLogRatio = 20;

at::Tensor log_ratio(const TrajectoryBatch& batch) {
  return batch.log_prob - batch.log_prob_old.detach();
}

// Per step, before any mean. [B, k, S]
at::Tensor clipped_steps(const TrajectoryBatch& batch, const at::Tensor& log_ratio, const ObjectiveParams& params) {
  const double limit = params.get("advantage_clip");
  const double clip = params.get("clip");
  const at::Tensor gain = -batch.advantage.detach().clamp(-limit, limit).unsqueeze(2);
  const at::Tensor ratio = log_ratio.clamp_max(kLargestLogRatio).exp();
  return at::maximum(gain * ratio, gain * ratio.clamp(1 - clip, 1 + clip));
}

}  // namespace

at::Tensor ddpo_loss(const TrajectoryBatch& batch, const ObjectiveParams& params) {
  return clipped_steps(batch, log_ratio(batch), params).mean({1, 2});
}

at::Tensor flow_grpo_loss(const TrajectoryBatch& batch, const ObjectiveParams& params) {
  const at::Tensor public_kl = (batch.kl * batch.step_size.detach()).mean({1, 2});
  return ddpo_loss(batch, params) + params.get("kl_weight") * public_kl;
}

at::Tensor grpo_guard_loss(const TrajectoryBatch& batch, const ObjectiveParams& params) {
  const at::Tensor centred = (log_ratio(batch) + batch.kl_old) * batch.step_std.detach();
  return (clipped_steps(batch, centred, params) / batch.step_size.detach()).mean({1, 2});
}

std::map<std::string, at::Tensor> ppo_metrics(const TrajectoryBatch& batch, double clip) {
  const at::Tensor difference = log_ratio(batch).detach();
  const at::Tensor is_outside = (difference.exp() - 1).abs() > clip;
  return {{"approx_kl", difference.square().mean() / 2}, {"clip_fraction", is_outside.to(difference.dtype()).mean()}};
}

}  // namespace prefusion::losses
