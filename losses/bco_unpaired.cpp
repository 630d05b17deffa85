#include "losses/bco_unpaired.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor bco_unpaired_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor label = desirability(errors, "bco-unpaired");
  const at::Tensor r = params.kappa * improvement(errors) - params.get("delta");
  return (label * log1p_exp(-r) + (1 - label) * log1p_exp(r)).mean(1);
}

}  // namespace prefusion::losses
