#pragma once

#include "losses/objective.h"
#include "losses/online/trajectory_batch.h"

namespace prefusion::losses {

// PRDP ("Proximal Reward Difference Prediction for Large-Scale Reward Finetuning of Diffusion Models", arXiv
// 2402.08714), the mean over the pairs i, j of a prompt's trajectories of the larger of
//   (R_i - R_j - (reward_i - reward_j) / beta)^2,  R = sum over steps of log_prob - log_prob_ref
// and the same with each step's difference kept within params "clip" of what it was for the sampling policy. The
// paper's densities are SUMS over C,H,W: differences are multiplied by num_elements before anything else. beta is kappa
// (10); the paper's clip is not known, 1e-4 is this toolkit's. [B]
at::Tensor prdp_loss(const TrajectoryBatch& batch, const ObjectiveParams& params);

}  // namespace prefusion::losses
