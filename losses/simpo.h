#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// SimPO ("SimPO: Simple Preference Optimization with a Reference-Free Reward", arXiv 2405.14734) with -error as the
// average log-likelihood:
//   softplus(-(kappa * (error_rejected - error_chosen) - gamma))
// Reference-free; gamma is the margin the logit should exceed. [B]
at::Tensor simpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
