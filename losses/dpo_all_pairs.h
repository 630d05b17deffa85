#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Diffusion-DPO (arXiv 2311.12908) on all pairs of a list:
//   mean over i preferred to j of softplus(-kappa * (s_i - s_j))
// Equal preferences (group_math.h) make no pair; a list without pairs has loss 0. A list of two is diffusion-dpo. [B]
at::Tensor dpo_all_pairs_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
