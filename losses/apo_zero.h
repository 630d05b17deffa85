#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// APO-zero ("Anchored Preference Optimization and Contrastive Revisions", arXiv 2408.06266): the chosen item up, the
// rejected down, each against the reference,
//   sigmoid(-a) + sigmoid(b),  a = kappa * s_chosen,  b = kappa * s_rejected
// Bounded: pairs far on either side have no gradient. [B]
at::Tensor apo_zero_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
