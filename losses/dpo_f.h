#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// f-DPO ("Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints", arXiv
// 2309.16240): the divergence bends the improvements before they are compared,
//   softplus(-scale * (f(x_chosen) - f(x_rejected))),  x = kappa * s / scale
// with f by `divergence`: reverse-kl x (diffusion-dpo); forward-kl -exp(-x); jensen-shannon log sigmoid(x); alpha
// exp((alpha - 1) x) / (alpha - 1), which goes from forward-kl at alpha 0 to reverse-kl at 1. x stands for the
// log-ratio of policy and reference, `scale` for its coefficient in the paper. Exponentials go on linearly above
// exponent 30. [B]
at::Tensor dpo_f_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
