#pragma once

#include "losses/objective.h"

// Labels that an objective makes itself (Objective::labels).
namespace prefusion::losses {

// The scores where given, else the preference (group_math.h). [B, k]
at::Tensor labels_from_scores(const GroupErrors& errors, const ObjectiveParams& params);

// 1 where score > params "threshold", else 0 ("threshold-guided" unpaired optimization, arXiv 2605.04653); without
// scores the labels are compared. A value at the threshold is undesirable. Run error for single items with neither. [B,
// k]
at::Tensor labels_from_threshold(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
