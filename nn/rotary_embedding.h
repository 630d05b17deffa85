#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

// Rotary positions ("RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv 2104.09864) over several
// axes: each axis turns a part of the channels of a head, two neighbours at a time.
namespace prefusion::nn {

// The angles of N tokens; each [N, head_dim / 2] fp32.
struct RotaryEmbedding {
  at::Tensor cosines;
  at::Tensor sines;
};

// positions [N, axes] of any dtype; axis_dims the channels of a head that follow each axis, all even. Pair i of an axis
// of d channels turns by position * theta^(-2 i / d), computed in fp64.
RotaryEmbedding rotary_embedding(const at::Tensor& positions, const std::vector<int64_t>& axis_dims,
                                 double theta = 10000);

// states [B, heads, N, head_dim] -> the same, turned in fp32.
at::Tensor apply_rotary(const at::Tensor& states, const RotaryEmbedding& rotary);

}  // namespace prefusion::nn
