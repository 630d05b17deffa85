#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// DGPO ("Reinforcing Diffusion Models by Direct Group Preference Optimization", arXiv 2510.08425) on given groups:
//   W * mean_i(A_i * e_i),  W = sigmoid(-kappa * mean_i(A_i * s_i)) without gradient
// A is the reward standardised within the group, (r - mean) / (std + 1e-4) with the population's std; groups of equal
// rewards weigh nothing. Rewards are the scores, without scores the labels. In its public code kappa is beta (100). The
// clip of its ratio to the sampling policy belongs to online training. [B]
at::Tensor dgpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
