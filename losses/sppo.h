#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// SPPO with hard labels ("Self-Play Preference Optimization for Language Model Alignment", arXiv 2405.00675):
//   (a - 1/2)^2 + (b + 1/2)^2,  a = kappa * s_chosen,  b = kappa * s_rejected
// This is kappa^2 times the (s_chosen - 1/(2 kappa))^2 + (s_rejected + 1/(2 kappa))^2 of the paper's units, as in
// dpo-ipo. [B]
at::Tensor sppo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
