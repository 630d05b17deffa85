#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// SmPO-Diffusion ("Smoothed Preference Optimization via ReNoise Inversion", arXiv 2506.02698) on the errors it gets:
//   -log sigmoid(kappa * gamma * (2 p - 1) * D),  p = softmax over the two scores / score_range of the chosen item
// Exchanging the items changes the sign of both 2 p - 1 and D, so the item of the higher score is the chosen one
// whatever the labels say. score_range is the public code's max - min of PickScore as a raw cosine. gamma 10. [B]
at::Tensor smpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
