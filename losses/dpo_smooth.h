#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Conservative DPO (cDPO): labels are wrong with probability eps = label_smoothing,
//   (1 - eps) * softplus(-u) + eps * softplus(u),  u = kappa * D
// Least at the finite u = log((1 - eps) / eps); eps = 0 is diffusion-dpo. [B]
at::Tensor dpo_smooth_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
