#include "nn/ada_layer_norm.h"

#include <ATen/ATen.h>

#include "kernels/gated_residual/gated_residual.h"
#include "kernels/layer_norm_modulate/layer_norm_modulate.h"

namespace prefusion::nn {

at::Tensor plain_layer_norm(const at::Tensor& input, double eps) {
  return at::layer_norm(input, {input.size(-1)}, /*weight=*/{}, /*bias=*/{}, eps);
}

at::Tensor Modulation::apply(const at::Tensor& normed) const {
  return at::addcmul(shift, normed, 1 + scale);
}

at::Tensor Modulation::apply_to_norm(const at::Tensor& states, double eps) const {
  const at::ScalarType dtype = states.scalar_type();
  if (scale.scalar_type() != dtype || shift.scalar_type() != dtype) return apply(plain_layer_norm(states, eps));
  const std::vector<int64_t> sizes = {states.size(0), states.size(2)};  // one row may serve all items
  return kernels::layer_norm_modulate(states, scale.squeeze(1).expand(sizes), shift.squeeze(1).expand(sizes), eps);
}

at::Tensor Modulation::add_gated(const at::Tensor& states, const at::Tensor& output) const {
  const at::ScalarType dtype = states.scalar_type();
  if (gate.scalar_type() != dtype || output.scalar_type() != dtype) return at::addcmul(states, gate, output);
  return kernels::gated_residual(states, output, gate.squeeze(1).expand({states.size(0), states.size(2)}));
}

AdaLayerNormZeroImpl::AdaLayerNormZeroImpl(int64_t dim, int64_t num_branches) : num_branches_(num_branches) {
  linear = register_module("linear", Linear(dim, 3 * num_branches * dim));
}

std::vector<Modulation> AdaLayerNormZeroImpl::forward(const at::Tensor& embedding) {
  const at::Tensor projected = linear->forward(at::silu(embedding)).unsqueeze(1);  // [B, 1, 3 * num_branches * D]
  const std::vector<at::Tensor> parts = projected.chunk(3 * num_branches_, /*dim=*/2);
  std::vector<Modulation> modulations;
  for (int64_t i = 0; i < num_branches_; ++i) {
    modulations.push_back({.shift = parts[3 * i], .scale = parts[3 * i + 1], .gate = parts[3 * i + 2]});
  }
  return modulations;
}

AdaLayerNormContinuousImpl::AdaLayerNormContinuousImpl(int64_t dim, int64_t embedding_dim, double eps) : eps_(eps) {
  linear = register_module("linear", Linear(embedding_dim, 2 * dim));
}

at::Tensor AdaLayerNormContinuousImpl::forward(const at::Tensor& input, const at::Tensor& embedding) {
  const at::Tensor projected = linear->forward(at::silu(embedding)).unsqueeze(1);  // [B, 1, 2 * dim]
  const std::vector<at::Tensor> parts = projected.chunk(2, /*dim=*/2);
  return Modulation{.shift = parts[1], .scale = parts[0]}.apply_to_norm(input, eps_);
}

}  // namespace prefusion::nn
