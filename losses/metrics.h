#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "losses/objective.h"

namespace prefusion::losses {

// The metrics every objective reports, as detached scalars on the errors' device (nothing waits for the GPU):
//   accuracy   share of ordered pairs whose better item has the larger implicit reward, a tie counting one half
//   margin     mean over groups of the implicit reward of the chosen minus that of the rejected item
//   error_chosen, error_rejected, and with reference errors error_chosen_ref, error_rejected_ref
//   gradient_factor  with a kappa: mean over ordered pairs of sigmoid(-difference of their implicit rewards), the share
//              of its strength with which a logistic loss still pushes: 1/2 at the start
//   ranking_accuracy   on lists: Kendall's tau between preference and -error over all pairs of different preference,
//              from -1 to 1, equal errors counting 0; with reference errors ranking_accuracy_ref is the reference's own
// The implicit reward is kappa * (error_ref - error), without the kappa for objectives that have none, and with -error
// in place of the difference for objectives without a reference. In a pair the chosen item is index 0; in a list it is
// the best by preference and the rejected the worst, and accuracy counts all pairs of different preference. Unpaired
// items (k = 1) are compared across the batch: chosen are those with a label above 1/2.
std::map<std::string, at::Tensor> common_metrics(const ObjectiveInfo& info, const GroupErrors& errors,
                                                 const ObjectiveParams& params);

}  // namespace prefusion::losses
