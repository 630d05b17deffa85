#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::losses {

// What an objective sees of a batch: B groups of k items (k = 1 unpaired, 2 a pair, more a list). Everything is per
// item; `error` is fp32 in training, fp64 is taken for gradient checks. Optional tensors may stay undefined.
struct GroupErrors {
  at::Tensor error;      // [B, k] mean squared error under the policy, differentiable
  at::Tensor error_ref;  // [B, k] the same under the reference; taken as constant
  at::Tensor
      labels;  // [B, k] how good each item is, larger is better: 1 chosen / 0 rejected, or a preference value in [0, 1]
  at::Tensor scores;   // [B, k] reward model outputs
  at::Tensor ranks;    // [B, k] list order, 0 is best
  at::Tensor weights;  // [B] factor of each group's loss, 1 where undefined
};

}  // namespace prefusion::losses
