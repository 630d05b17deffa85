#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Diffusion-RPO ("Diffusion-RPO: Aligning Diffusion Models through Relative Preference Optimization", arXiv
// 2406.06382):
//   sum over j of w_ij * softplus(-kappa * (s_chosen_i - s_rejected_j)),  w_i = softmax over j of -distance_ij / tau
// The chosen item of every prompt against the rejected items of all prompts of the batch, near prompts counting more; a
// batch of one is diffusion-dpo. The batch is that of one device and micro-step. [B]
at::Tensor rpo_cross_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
