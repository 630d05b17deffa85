#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Robust DPO ("Provably Robust DPO", arXiv 2403.00409), unbiased when labels are flipped with probability
// eps = label_smoothing < 1/2:
//   ((1 - eps) * softplus(-u) - eps * softplus(u)) / (1 - 2 eps),  u = kappa * D
// Unbounded below for eps > 0; eps = 0 is diffusion-dpo. [B]
at::Tensor dpo_robust_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
