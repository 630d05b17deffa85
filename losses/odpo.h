#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// ODPO ("Direct Preference Optimization with an Offset", arXiv 2402.10571): the logit should exceed a margin in
// proportion to how much better the chosen item is,
//   softplus(-(u - alpha * (reward_chosen - reward_rejected))),  u = kappa * D
// Rewards are the scores, without scores the labels. alpha = 0 is diffusion-dpo; a pair whose scores contradict it gets
// a negative margin. [B]
at::Tensor odpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
