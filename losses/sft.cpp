#include "losses/sft.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor sft_loss(const GroupErrors& errors, const ObjectiveParams&) {
  if (errors.error.size(1) <= 2) return errors.error.select(1, 0);
  const at::Tensor best = order_best_first(preference(errors)).slice(1, 0, 1);
  return errors.error.gather(1, best).squeeze(1);
}

}  // namespace prefusion::losses
