#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::losses {

// The pairwise loss of a list weighted by DCG, common to rankdpo and lambdarank:
//   sum over phi_i > phi_j of (2^phi_i - 2^phi_j) * |1/ln(1 + rank_i) - 1/ln(1 + rank_j)| * softplus(-kappa * (s_i -
//   s_j))
// phi and s are [B, k]; `order` [B, k] holds the items' positions by rank, best (rank 1) first. [B]
at::Tensor dcg_pair_loss(const at::Tensor& phi, const at::Tensor& order, const at::Tensor& s, double kappa);

}  // namespace prefusion::losses
