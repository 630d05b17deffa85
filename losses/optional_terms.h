#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// The loss of each group under the options (loss_options.h), before the group weights. [B]
at::Tensor group_loss_with(const Objective& objective, const GroupErrors& errors, const ObjectiveParams& params,
                           const LossOptions& options);

}  // namespace prefusion::losses
