#include "losses/derived_labels.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor labels_from_scores(const GroupErrors& errors, const ObjectiveParams& /*params*/) {
  return reward_or_preference(errors);
}

at::Tensor labels_from_threshold(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor value =
      errors.scores.defined() ? reward_or_preference(errors) : desirability(errors, "kto-threshold");
  return (value > params.get("threshold")).to(value.dtype());
}

}  // namespace prefusion::losses
