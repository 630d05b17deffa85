#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// The bounded margin of Diff-SNPO (ICLR 2026):
//   softplus(-v),  v = -log(lambda * exp(-u) + 1 - lambda),  u = kappa * D
// v is the paper's -log(lambda * exp(-d) + (1 - lambda) * exp(-d_ref)) - d_ref with d the scaled error gap. It never
// exceeds -log(1 - lambda), so that solved pairs stop pulling; lambda = 1 is diffusion-dpo. The other half of the
// method, labels exchanged where the caption was dropped, is the data's. [B]
at::Tensor snpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
