#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// AOT ("Distributional Preference Alignment of LLMs via Optimal Transport", arXiv 2406.05882): the conservative
// logistic loss of dpo-smooth on differences of sorted batches, so that one distribution dominates the other,
//   pairing = paired:    u = kappa * (sorted(e_rejected - e_chosen) - sorted(the same of the reference))
//   pairing = unpaired:  u = kappa * (sorted(s_chosen) - sorted(s_rejected))
// The loss of a sorted position belongs to the group whose policy gap (paired) or chosen item (unpaired) stands there.
// A batch of one is dpo-smooth; the batch is that of one device. [B]
at::Tensor aot_loss(const GroupErrors& errors, const ObjectiveParams& params);

}  // namespace prefusion::losses
