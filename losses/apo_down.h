#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// APO-down ("Anchored Preference Optimization and Contrastive Revisions", arXiv 2408.06266), for chosen items worse
// than what the policy makes: both down, the rejected more,
//   sigmoid(a) + sigmoid(-u),  a = kappa * s_chosen,  u = kappa * D
// [B]
at::Tensor apo_down_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
