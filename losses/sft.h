#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Supervised fine-tuning: the error of the chosen item (index 0 of a pair, the best of a list, the item itself), the
// ordinary denoising loss. [B]
at::Tensor sft_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
