#include "nn/rotary_embedding.h"

#include <ATen/ATen.h>

namespace prefusion::nn {

RotaryEmbedding rotary_embedding(const at::Tensor& positions, const std::vector<int64_t>& axis_dims, double theta) {
  std::vector<at::Tensor> angles;
  for (size_t axis = 0; axis < axis_dims.size(); ++axis) {
    const auto fp64 = at::TensorOptions().dtype(at::kDouble).device(positions.device());
    const at::Tensor exponents = at::arange(0, axis_dims[axis], 2, fp64) / axis_dims[axis];
    const at::Tensor frequencies = at::pow(theta, exponents).reciprocal();  // [axis_dim / 2]
    angles.push_back(at::outer(positions.select(1, static_cast<int64_t>(axis)).to(at::kDouble), frequencies));
  }
  const at::Tensor all = at::cat(angles, /*dim=*/1);  // [N, head_dim / 2]
  return {.cosines = at::cos(all).to(at::kFloat), .sines = at::sin(all).to(at::kFloat)};
}

at::Tensor apply_rotary(const at::Tensor& states, const RotaryEmbedding& rotary) {
  const at::Tensor pairs = states.to(at::kFloat).unflatten(-1, {states.size(-1) / 2, 2});
  const at::Tensor first = pairs.select(-1, 0);  // [B, heads, N, head_dim / 2]
  const at::Tensor second = pairs.select(-1, 1);
  const at::Tensor turned =
      at::stack({first * rotary.cosines - second * rotary.sines, second * rotary.cosines + first * rotary.sines},
                /*dim=*/-1);
  return turned.flatten(-2).to(states.scalar_type());
}

}  // namespace prefusion::nn
