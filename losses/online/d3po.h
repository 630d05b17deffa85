#pragma once

#include "losses/objective.h"
#include "losses/online/trajectory_batch.h"

namespace prefusion::losses {

// D3PO ("Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model", arXiv 2311.13231) on pairs of
// trajectories, averaged over steps:
//   -log sigmoid(kappa * (log rho_chosen - log rho_rejected)),  rho = clamp(exp(log_prob - log_prob_ref), 1 - eps, 1 +
//   eps)
// with kappa its beta (0.1) and eps = params "clip" 0.1. Outside the clamp a step has no gradient. SPO ("Step-aware
// Preference Optimization", arXiv 2406.04314) is the same loss with beta 10 on pairs of steps from one common x_t. [B]
at::Tensor d3po_loss(const TrajectoryBatch& batch, const ObjectiveParams& params);

}  // namespace prefusion::losses
