#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// BCO ("Binary Classifier Optimization for Large Language Model Alignment", arXiv 2404.04656), each item classified by
// itself:
//   softplus(-(a - delta)) + softplus(b - delta),  a = kappa * s_chosen,  b = kappa * s_rejected
// delta is a constant here, 0 by default; the paper's running mean of the rewards would be state. [B]
at::Tensor bco_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
