#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace prefusion::kernels {

// Group norm (arXiv 1803.08494) of pictures in channels-last memory, as convolutional denoisers have it: with what
// comes before it in a residual block, the time embedding's addition, and after it, SiLU.
//   input         [B, C, H, W] fp32, bf16, fp16 or fp64; brought into channels-last memory where it is not
//   shift         [B, C], added to each pixel before the norm; undefined: nothing
//   weight, bias  [C]
//   returns       [B, C, H, W] in channels-last memory
// All of one dtype. Computed in fp32 (fp64 for fp64), rounded where the composition stores: the sum, the norm, and the
// result. Mean and variance are merged from chunks of kGroupNormChunk pixels, so that a large mean costs no digits.
//
// Differentiable once in all four: input and shift are kept, with a mean and a deviation for each group. Every sum has
// an order that depends on the shape alone. Run error when shapes, dtypes or devices do not fit, a group is empty, or a
// second derivative is asked for.
struct GroupNormOptions {
  int64_t num_groups = 32;
  double eps = 1e-5;
  bool with_silu = false;
};
at::Tensor group_norm(const at::Tensor& input, const at::Tensor& shift, const at::Tensor& weight,
                      const at::Tensor& bias, const GroupNormOptions& options);

// Per-device implementations; none of the tensors is empty. P = H W, `acc` is fp32 (fp64 for fp64).
namespace detail {

// Pixels whose sums are taken together.
constexpr int64_t kGroupNormChunk = 32;

struct GroupNormArgs {
  at::Tensor input;         // [B, P, C], dense
  at::Tensor shift;         // [B, C], elements of a row adjacent
  at::Tensor weight, bias;  // [C], dense
  at::Tensor output;        // [B, P, C], dense; not needed backward
  at::Tensor mean, rstd;    // [B, G] acc: of each group, and 1 / sqrt(variance + eps)
  at::Tensor partial;       // [B, chunks, 2, C] acc, scratch; backward [B, chunks, 3, C]
  double eps = 1e-5;
  bool with_silu = false;
};

// Writes output, mean and rstd.
void group_norm_cpu(const GroupNormArgs& args);
void group_norm_cuda(const GroupNormArgs& args);

struct GroupNormGradArgs {
  GroupNormArgs forward;
  at::Tensor grad_output;  // [B, P, C], dense
  at::Tensor grad_input;   // [B, P, C], dense
  // [B, 3, C] acc: sums over pixels of the gradient behind the norm, of it times the normalised input, and of the
  // normalised input. The first two are the items' shares of the gradients of bias and weight.
  at::Tensor totals;
  at::Tensor group_means;  // [B, 2, G] acc, scratch
  at::Tensor grad_shift;   // [B, C] acc
};

void group_norm_backward_cpu(const GroupNormGradArgs& args);
void group_norm_backward_cuda(const GroupNormGradArgs& args);

}  // namespace detail
}  // namespace prefusion::kernels
