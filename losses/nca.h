#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// NCA for pairs ("Noise Contrastive Alignment of Language Models with Explicit Rewards", arXiv 2402.05369):
//   softplus(-a) + softplus(a) / 2 + softplus(b) / 2,  a = kappa * s_chosen,  b = kappa * s_rejected
// Not a function of D alone: it holds the chosen item's own improvement, least at a = log 2. [B]
at::Tensor nca_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
