#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// EXO for pairs ("Towards Efficient Exact Optimization of Language Model Alignment", arXiv 2402.00856), also DMPO
// ("Divergence Minimization Preference Optimization for Diffusion Model Alignment", arXiv 2507.07510): the reverse KL
// of the policy's preference to a label that is wrong with probability eps = label_smoothing > 0,
//   p * (log p - log(1 - eps)) + (1 - p) * (log(1 - p) - log eps),  p = sigmoid(u),  u = kappa * D
// Zero at the finite u = log((1 - eps) / eps). [B]
at::Tensor exo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
