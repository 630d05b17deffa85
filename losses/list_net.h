#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// ListNet ("Learning to Rank: From Pairwise Approach to Listwise Approach", ICML 2007): the cross-entropy of two
// distributions over the items of a list,
//   -sum_i softmax(phi / temperature)_i * log softmax(kappa * s)_i
// phi is the items' preference (group_math.h). Low temperatures put all on the best item; equal phi share evenly. A
// list of two is dpo-smooth with eps = sigmoid(-(phi_1 - phi_2) / temperature). [B]
at::Tensor list_net_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
