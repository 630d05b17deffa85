#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// DiscoPOP, the log-ratio modulated loss ("Discovering Preference Optimization Algorithms with and for Large Language
// Models", arXiv 2406.08414):
//   (1 - m) * softplus(-u) + m * exp(-u),  m = sigmoid(u / tau),  u = kappa * D
// The gradient goes through m too. tau is at most 1, without which m * exp(-u) has no bound for u < 0. [B]
at::Tensor discopop_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
