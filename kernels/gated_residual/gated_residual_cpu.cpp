#include <ATen/ATen.h>

#include <algorithm>

#include "kernels/cpu_vector.h"
#include "kernels/dispatch.h"
#include "kernels/gated_residual/gated_residual.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

// A chunk of rows of one item.
template <typename T, typename Real>
struct Chunk {
  const T *grad, *output, *gate;
  T* grad_output;
  Real* sums;  // [D]
  int64_t rows, width;
};

template <typename T, typename Real>
PREFUSION_INLINE void differentiate_chunk(const Chunk<T, Real>& chunk) {
  const T* __restrict__ gate = chunk.gate;
  Real* __restrict__ sums = chunk.sums;
  for (int64_t j = 0; j < chunk.width; ++j) sums[j] = 0;
  for (int64_t row = 0; row < chunk.rows; ++row) {
    const T* __restrict__ grad = chunk.grad + row * chunk.width, * __restrict__ output =
                                                                     chunk.output + row * chunk.width;
    T* __restrict__ grad_output = chunk.grad_output + row * chunk.width;
    for (int64_t j = 0; j < chunk.width; ++j) {
      const Real g = static_cast<Real>(grad[j]);
      sums[j] += g * static_cast<Real>(output[j]);
      grad_output[j] = static_cast<T>(g * static_cast<Real>(gate[j]));
    }
  }
}

PREFUSION_VECTOR_STEP(DifferentiateChunk, differentiate_chunk, Chunk);

template <typename T, typename Real>
void backward(const GatedResidualGradArgs& args) {
  const int64_t num_rows = args.output.size(1), width = args.output.size(2), chunks = args.partial.size(1);
  const T *grad = args.grad.const_data_ptr<T>(), *output = args.output.const_data_ptr<T>();
  const T* gate = args.gate.const_data_ptr<T>();
  T* grad_output = args.grad_output.mutable_data_ptr<T>();
  Real* partial = args.partial.mutable_data_ptr<Real>();
  const int64_t gate_stride = args.gate.stride(0);
  const auto run = DifferentiateChunk<T, Real>::best();
  parallel_for(args.output.size(0) * chunks, /*grain=*/1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t item = index / chunks, first = index % chunks * kGateChunk;
      const int64_t offset = (item * num_rows + first) * width;
      run({.grad = grad + offset,
           .output = output + offset,
           .gate = gate + item * gate_stride,
           .grad_output = grad_output + offset,
           .sums = partial + index * width,
           .rows = std::min(kGateChunk, num_rows - first),
           .width = width});
    }
  });
}

}  // namespace

void gated_residual_backward_cpu(const GatedResidualGradArgs& args) {
  for_float_type(args.output.scalar_type(),
                 [&](auto element, auto real) { backward<decltype(element), decltype(real)>(args); });
}

}  // namespace prefusion::kernels::detail
