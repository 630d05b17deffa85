#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Diffusion-SDPO (arXiv 2511.03317) over diffusion-dpo: the loss of diffusion-dpo, whose gradient through the rejected
// item is multiplied by the factor of safe_loser_factor with mu = params "mu", so that to first order a step does not
// raise the chosen items' error. The factor is one number for the batch of a device and micro-step. [B]
at::Tensor sdpo_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
