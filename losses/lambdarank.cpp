#include "losses/lambdarank.h"

#include <ATen/ATen.h>

#include "losses/dcg_pair_loss.h"
#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor lambdarank_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor s = improvement(errors);
  return dcg_pair_loss(preference(errors), order_best_first(s.detach()), s, params.kappa);
}

}  // namespace prefusion::losses
