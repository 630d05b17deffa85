#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace prefusion::kernels {

// What the transformers of SD3 and FLUX do to the queries and keys of every head before attention, in one pass: RMS
// norm over the channels of the head (arXiv 1910.07467), then rotary positions (arXiv 2104.09864) in fp32, two
// neighbouring channels at a time.
//   states          [B, heads, N, d] fp32, bf16, fp16 or fp64; d even
//   weight          [d] of that dtype; undefined: one
//   cosines, sines  [N, d / 2] fp32, the angles of each token; both undefined: nothing is turned
//   returns         [B, heads, N, d] in the memory order of the states where that is [B, heads, N, d] or [B, N, heads,
//   d],
//                   else in the former
// Computed in fp32 (fp64 for fp64), rounded where the composition stores: the norm, and the result.
//
// Differentiable once in states and weight; the states are kept, with a number for each head of a token. Sums have an
// order that depends on the shape alone. Run error when shapes, dtypes or devices do not fit, d is odd or 0, or a
// second derivative is asked for.
struct RotaryAngles {
  at::Tensor cosines, sines;
};
at::Tensor rms_norm_rotary(const at::Tensor& states, const at::Tensor& weight, double eps, const RotaryAngles& angles);

// Per-device implementations; none of the tensors is empty. Rows are heads of tokens in memory order: of row r the
// token is r / rows_per_token % N. `acc` is fp32 (fp64 for fp64).
namespace detail {

struct RmsNormRotaryArgs {
  at::Tensor states;          // [rows, d], dense
  at::Tensor weight;          // [d] acc, dense
  at::Tensor cosines, sines;  // [N, d / 2] fp32, dense; undefined: nothing is turned
  at::Tensor output;          // [rows, d], dense; backward the gradient of the states
  at::Tensor rstd;            // [rows] acc: 1 / sqrt(mean of squares + eps)
  int64_t rows_per_token = 1;
  double eps = 1e-6;
};

// Writes output and rstd.
void rms_norm_rotary_cpu(const RmsNormRotaryArgs& args);
void rms_norm_rotary_cuda(const RmsNormRotaryArgs& args);

// Rows whose share of the gradient of the weight is one sum.
constexpr int64_t kHeadRowsChunk = 64;

struct RmsNormRotaryGradArgs {
  RmsNormRotaryArgs forward;
  at::Tensor grad_output;  // [rows, d], dense
  at::Tensor grad_weight;  // [d] acc; undefined when it is not wanted
  at::Tensor partial;      // [ceil(rows / kHeadRowsChunk), d] acc, scratch; undefined with grad_weight
};

void rms_norm_rotary_backward_cpu(const RmsNormRotaryGradArgs& args);
void rms_norm_rotary_backward_cuda(const RmsNormRotaryGradArgs& args);

}  // namespace detail
}  // namespace prefusion::kernels
