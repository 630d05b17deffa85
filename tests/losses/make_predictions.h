#pragma once

#include <ATen/ATen.h>

#include "core/rng.h"
#include "losses/group_errors.h"

namespace prefusion::tests {

// Predictions of policy and reference and their target for B groups of k items, [B, k, 3, 4, 4] fp64: for objectives
// whose gradient is checked in output space.
struct Predictions {
  at::Tensor policy, reference, target;
};

inline Predictions make_predictions(int64_t num_groups, int64_t k, uint64_t seed = 1) {
  const auto normal = [&](uint64_t item) {
    return philox_randn({num_groups, k, 3, 4, 4}, {.seed = seed, .item = item}, RandomPurpose::kOther).to(at::kDouble);
  };
  Predictions predictions;
  predictions.target = normal(0);
  predictions.reference = predictions.target + 0.3 * normal(1);
  predictions.policy = (predictions.reference + 0.05 * normal(2)).requires_grad_();
  return predictions;
}

// Mean over C,H,W. [B, k]
inline at::Tensor item_mean(const at::Tensor& x) {
  return x.flatten(2).mean(2);
}

// What a training step makes of them.
inline losses::GroupErrors errors_of(const Predictions& p) {
  losses::GroupErrors errors;
  errors.error = item_mean((p.policy - p.target).square());
  errors.error_ref = item_mean((p.reference - p.target).square());
  errors.drift = item_mean((p.policy - p.reference).square());
  const at::Tensor residual = (p.policy - p.target).detach();
  errors.residual_dot = (residual.select(1, 0) * residual.select(1, 1)).flatten(1).mean(1);
  return errors;
}

}  // namespace prefusion::tests
