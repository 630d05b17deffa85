#include "losses/list_net.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor list_net_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor target = at::softmax(preference(errors) / params.get("temperature"), 1);
  return -(target * at::log_softmax(params.kappa * improvement(errors), 1)).sum(1);
}

}  // namespace prefusion::losses
