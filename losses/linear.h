#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Linear-DPO (arXiv 2605.21123), as its public code computes it:
//   w * (e_chosen - e_rejected),  w = clamp(1/2 - kappa * D, eta, 1 - eta) without gradient
// In its public code kappa is 0.2 * beta (beta 100). The weight takes the place of the sigmoid in the gradient of DPO;
// the paper's reference is an average of the policy that follows it. [B]
at::Tensor linear_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
