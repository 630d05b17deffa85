#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Hinge link of SLiC ("SLiC-HF", arXiv 2305.10425) on D:
//   max(0, 1 - kappa * D)
// A pair whose margin exceeds 1 has no gradient. [B]
at::Tensor dpo_hinge_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
