#pragma once

#include <ATen/core/Tensor.h>

#include "losses/group_errors.h"

// The few quantities that objectives and metrics share. Shapes: B groups of k items.
namespace prefusion::losses {

// log(1 + exp(x)) and its gradient without overflow or threshold; log sigmoid(x) = -log1p_exp(-x).
at::Tensor log1p_exp(const at::Tensor& x);

// (1 - eps) * softplus(-u) + eps * softplus(u): the logistic loss when a label is wrong with probability eps. Shape of
// u.
at::Tensor smoothed_logistic(const at::Tensor& u, double eps);

// s = error_ref - error: how much better the policy models an item than the reference does. [B, k]
at::Tensor improvement(const GroupErrors& errors);

// Squared norm of each item's residual as residual_dot takes it, [B, k], constant.
at::Tensor residual_squares(const GroupErrors& errors);

// D = s_chosen - s_rejected of pairs, index 0 chosen. [B]
at::Tensor pair_improvement(const GroupErrors& errors);

// How good each item is, larger is better, [B, k] in the errors' dtype, constant: the labels where given; else the
// scores; else, for a pair, (1, 0). Run error for a list with neither.
at::Tensor preference(const GroupErrors& errors);

// What a reward model said of each item, [B, k] in the errors' dtype, constant: the scores where given, else the
// preference.
at::Tensor reward_or_preference(const GroupErrors& errors);

// Labels of unpaired objectives: 1 desirable, 0 not, [B, k] in the errors' dtype. A pair without labels is one of each;
// run error naming `objective` for other items without labels.
at::Tensor desirability(const GroupErrors& errors, const char* objective);

// Where item i (dimension 1) is strictly preferred to item j (dimension 2): 1, else 0. [B, k, k] in the dtype of
// `preference`
at::Tensor preferred_pairs(const at::Tensor& preference);

// x_i - x_j of all items i (dimension 1) and j (dimension 2). [B, k] -> [B, k, k]
at::Tensor pair_differences(const at::Tensor& x);

// Positions 0 .. k-1 of the items, best first; equal preferences keep their order. [B, k] int64
at::Tensor order_best_first(const at::Tensor& preference);

}  // namespace prefusion::losses
