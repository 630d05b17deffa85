#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// LambdaRank, LiPO-lambda ("LiPO: Listwise Preference Optimization through Learning-to-Rank", arXiv 2402.01878):
//   sum over i preferred to j of |G_i - G_j| * |1/ln(1 + tau_i) - 1/ln(1 + tau_j)| * softplus(-kappa * (s_i - s_j))
// G = 2^phi - 1, phi the items' preference (group_math.h); tau is the rank by the policy's own improvement s, best 1,
// equal s in the order given. rankdpo is the same with ranks by phi. Neither factor carries a gradient. [B]
at::Tensor lambdarank_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
