#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Diffusion-DPO ("Diffusion Model Alignment Using Direct Preference Optimization", arXiv 2311.12908, equation 14):
//   -log sigmoid(kappa * D),  D = (error_ref - error)_chosen - (error_ref - error)_rejected
// The public code writes kappa as beta / 2 on errors that are means over C,H,W (beta 5000, kappa 2500). [B]
at::Tensor diffusion_dpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
