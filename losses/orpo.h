#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// ORPO ("ORPO: Monolithic Preference Optimization without Reference Model", arXiv 2403.07691) with -error as the
// average log-likelihood:
//   e_chosen + weight * softplus(-K * (e_rejected - e_chosen))
// A public diffusion script has the sign of the difference inverted, which rewards a larger chosen error, and K = 1,
// which leaves the second term without effect. weight 0.1 is its beta. Reference-free. [B]
at::Tensor orpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
