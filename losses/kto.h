#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Diffusion-KTO ("Aligning Diffusion Models by Optimizing Human Utility", arXiv 2404.04465) with unit weights:
//   1 - sigmoid((2 label - 1) * kappa * (g - Q)),  g = error_ref - error,  Q = max(0, mean of g over the batch)
// Q carries no gradient. Labels are 1 desirable, 0 not; a pair without labels counts as one of each. In its public code
// kappa is beta itself. Groups of more than one item take the mean over their items. [B]
at::Tensor kto_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
