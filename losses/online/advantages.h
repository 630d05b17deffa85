#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::losses {

// What a reward is compared with.
enum class AdvantageScope {
  kGroup,      // mean and deviation of the prompt's trajectories
  kGroupMean,  // mean of the prompt's, deviation of all rewards (Flow-GRPO's global_std)
  kBatch,      // mean and deviation of all rewards (DDPO while a prompt has few)
};

// (reward - mean) / (std + eps), std the population's, limited to +-clip. The public code of Flow-GRPO (arXiv
// 2505.05470) has eps 1e-4, that of DDPO (arXiv 2305.13301) 1e-6; both clip at 5. Rewards that do not differ give 0.
// reward [B, k] -> [B, k], constant
at::Tensor standardised_advantage(const at::Tensor& reward, AdvantageScope scope, double clip = 5, double eps = 1e-4);

}  // namespace prefusion::losses
