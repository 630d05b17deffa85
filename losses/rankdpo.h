#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// RankDPO ("Scalable Ranked Preference Optimization for Text-to-Image Generation", arXiv 2410.18013): DPO over all
// pairs of a list, weighted by what exchanging the two would change in the list's DCG,
//   sum over i preferred to j of |G_i - G_j| * |1/ln(1 + rank_i) - 1/ln(1 + rank_j)| * softplus(-kappa * (s_i - s_j))
// G = 2^phi - 1; phi is the items' preference (group_math.h), rank its order, best 1. Neither carries a gradient, and
// the sum is not normalised, as in the paper. Equal phi weigh nothing. [B]
at::Tensor rankdpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
