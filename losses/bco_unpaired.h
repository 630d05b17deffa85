#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// BCO ("Binary Classifier Optimization for Large Language Model Alignment", arXiv 2404.04656) on single items:
//   label * softplus(-(kappa * s - delta)) + (1 - label) * softplus(kappa * s - delta)
// Labels are 1 desirable, 0 not, or between. delta is a constant, as in bco. Groups of more than one item take the mean
// over their items. [B]
at::Tensor bco_unpaired_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
