#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Poly-DPO ("ViPO", ICLR 2026):
//   softplus(-u) + alpha * sigmoid(-u),  u = kappa * D
// alpha > 0 dwells on undecided pairs (8 for the noisy labels of Pick-a-Pic), alpha < 0 on wrong ones; 0 is
// diffusion-dpo. [B]
at::Tensor poly_dpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
