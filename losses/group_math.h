#pragma once

#include <ATen/core/Tensor.h>

#include "losses/group_errors.h"

// The few quantities that objectives and metrics share. Shapes: B groups of k items.
namespace prefusion::losses {

// log(1 + exp(x)) and its gradient without overflow or threshold; log sigmoid(x) = -log1p_exp(-x).
at::Tensor log1p_exp(const at::Tensor& x);

// s = error_ref - error: how much better the policy models an item than the reference does. [B, k]
at::Tensor improvement(const GroupErrors& errors);

// D = s_chosen - s_rejected of pairs, index 0 chosen. [B]
at::Tensor pair_improvement(const GroupErrors& errors);

// How good each item is, larger is better, [B, k] in the errors' dtype, constant: the labels where given; else from
// ranks the share of rivals an item beats; else the scores; else, for a pair, (1, 0). Run error for a list without any
// of them.
at::Tensor preference(const GroupErrors& errors);

// Positions 0 .. k-1 of the items, best first; equal preferences keep their order. [B, k] int64
at::Tensor order_best_first(const at::Tensor& preference);

}  // namespace prefusion::losses
