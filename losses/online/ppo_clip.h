#pragma once

#include "losses/objective.h"
#include "losses/online/trajectory_batch.h"

// Policy gradients on steps, limited by clipping the ratio of policy and sampling policy as in PPO:
//   max(-A * rho, -A * clamp(rho, 1 - clip, 1 + clip)),  rho = exp(log_prob - log_prob_old)
// averaged over trajectories and steps, A the advantage limited to +-advantage_clip. Log-probabilities are means over
// C,H,W, so rho is the C*H*W-th root of the true ratio, which is why clip is of the size of 1e-4. Log-ratios above 20
// are taken for 20: far outside any clip, and finite.
namespace prefusion::losses {

// DDPO ("Training Diffusion Models with Reinforcement Learning", arXiv 2305.13301), also DanceGRPO (arXiv 2505.07818),
// which differs in how steps are drawn and advantages made. params clip 1e-4, advantage_clip 5. [B]
at::Tensor ddpo_loss(const TrajectoryBatch& batch, const ObjectiveParams& params);

// Flow-GRPO (arXiv 2505.05470): the same plus kl_weight * mean of kl * step_size. Its public code divides the squared
// difference of the means by 2 sigma_t^2 alone, that is, multiplies the step's KL by -dt; its weights (0.04, 0.01) go
// with that. [B]
at::Tensor flow_grpo_loss(const TrajectoryBatch& batch, const ObjectiveParams& params);

// GRPO-Guard (arXiv 2510.22319): rho = exp((log_prob - log_prob_old + kl_old) * step_std), whose mean does not drift as
// the policy moves, and each step divided by step_size, so that steps weigh alike. clip 2e-6. Its public code takes the
// mean of step_std and step_size over a batch; here every step has its own. [B]
at::Tensor grpo_guard_loss(const TrajectoryBatch& batch, const ObjectiveParams& params);

// Detached scalars: approx_kl = mean (log_prob - log_prob_old)^2 / 2, clip_fraction = share of ratios outside the clip.
std::map<std::string, at::Tensor> ppo_metrics(const TrajectoryBatch& batch, double clip);

}  // namespace prefusion::losses
