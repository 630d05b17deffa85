#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// CPO ("Contrastive Preference Optimization", arXiv 2401.08417) with -error as the average log-likelihood:
//   softplus(-kappa * (e_rejected - e_chosen)) + alpha * e_chosen
// Reference-free; the second term keeps the policy at the chosen items. [B]
at::Tensor cpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
