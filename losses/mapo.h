#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// MaPO ("Margin-aware Preference Optimization for Aligning Diffusion Models without Reference", arXiv 2406.06424), as
// its public code computes it:
//   error_chosen - weight * log sigmoid(T * (h(error_chosen) - h(error_rejected))),  h(e) = snr * e / (exp(snr * e) -
//   1)
// with snr 0.5, weight 0.1 (the code's beta_mapo), T 1000. Reference-free. [B]
at::Tensor mapo_loss(const GroupErrors& errors, const ObjectiveParams& params);

// z / (exp(z) - 1) and its gradient for z >= 0, exact and finite everywhere: 1 at 0, 0 at infinity. Shape of z.
at::Tensor bernoulli_function(const at::Tensor& z);

}  // namespace prefusion::losses
