#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// After RankList ("RankList - A Listwise Preference Learning Framework for Predicting Subjective Preferences"), its
// skip-wise comparisons carried over to improvements, items best first:
//   sum_{q = 1}^{strides} sum_i softplus(-kappa * (s_i - s_{i + q}))
// strides = 1 compares neighbours, k - 1 and more all pairs. The order is that of the items' preference (group_math.h);
// items of equal preference are not compared. [B]
at::Tensor ranklist_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
