#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// DSPO ("DSPO: Direct Score Preference Optimization for Diffusion Model Alignment", ICLR 2025), in the form of the
// paper and of its public SD1.5 code:
//   mean over C,H,W of ((f - y) - q * (f - f_ref))^2 of the chosen item,  q = beta * (1 - sigmoid(u)),  u = kappa * D
// with f the prediction, y the target, f_ref the reference's prediction and beta = 2 * kappa (0.001). As there, q is
// differentiated too. Errors and drift are enough, for mean (f - y)(f - f_ref) = (error - error_ref + drift) / 2. [B]
at::Tensor dspo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
