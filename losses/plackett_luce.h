#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Plackett-Luce likelihood of the order of a list (Diffusion-LPO, arXiv 2510.01540), items best first:
//   -sum_{j=1}^{k-1} [kappa * s_j - log sum_{m >= j} exp(kappa * s_m)]
// A list of two is diffusion-dpo. The order is that of the items' preference (group_math.h), ties in the order given.
// [B]
at::Tensor plackett_luce_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
