#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// CaPO ("Calibrated Preference Optimization for Diffusion Models", arXiv 2502.02588) on the best and the worst item of
// a list:
//   (R_best - R_worst - kappa * (s_best - s_worst))^2,  R_i = mean over rivals j of sigmoid(scale * (r_i - r_j))
// R is the expected share of wins, which makes rewards of any unit comparable; r are the scores, without scores the
// labels. A regression: a gap already larger than the rewards' is taken back. [B]
at::Tensor capo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
