#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// IPO ("A General Theoretical Paradigm to Understand Learning from Human Preferences", arXiv 2310.12036) on D:
//   (kappa * D - 1/2)^2
// This is kappa^2 times the (D - 1/(2 kappa))^2 of the paper's units, so that its gradient has the size of the others'.
// [B]
at::Tensor dpo_ipo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
