#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "kernels/cuda_rows.h"
#include "kernels/dispatch.h"
#include "kernels/gated_residual/gated_columns.h"
#include "kernels/gated_residual/gated_residual.h"

namespace prefusion::kernels::detail {
namespace {

constexpr const char* kName = "gated_residual";

// Grid: packets of columns in blocks of kThreads, then (item, chunk) in a stride.
template <int kSize, typename Columns>
__global__ void backward_kernel(Columns columns, int64_t num_chunks) {
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kSize;
  if (column >= columns.width) return;
  for (int64_t index = blockIdx.y; index < num_chunks; index += gridDim.y) {
    columns.differentiate(index / columns.chunks, index % columns.chunks, column);
  }
}

template <int kSize, typename T, typename Real>
void launch(const GatedResidualGradArgs& args) {
  const GatedColumns<kSize, T, Real> columns{.grad = args.grad.const_data_ptr<T>(),
                                             .output = args.output.const_data_ptr<T>(),
                                             .gate = args.gate.const_data_ptr<T>(),
                                             .grad_output = args.grad_output.mutable_data_ptr<T>(),
                                             .partial = args.partial.mutable_data_ptr<Real>(),
                                             .rows_per_item = args.output.size(1),
                                             .width = args.output.size(2),
                                             .gate_stride = args.gate.stride(0),
                                             .chunk_rows = kGateChunk,
                                             .chunks = args.partial.size(1)};
  constexpr int64_t kMaxBlocks = 65535;
  const int64_t num_chunks = args.output.size(0) * columns.chunks;
  const int64_t packets = (columns.width + kSize - 1) / kSize;
  const dim3 grid(static_cast<unsigned>((packets + kThreads - 1) / kThreads),
                  static_cast<unsigned>(std::min(num_chunks, kMaxBlocks)));
  backward_kernel<kSize><<<grid, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(columns, num_chunks);
  check_launch(kName);
}

template <typename T, typename Real>
void backward(const GatedResidualGradArgs& args) {
  const c10::cuda::CUDAGuard device(args.output.device());
  const bool in_packets = rows_take_packets<T>(args.grad) && rows_take_packets<T>(args.output) &&
                          rows_take_packets<T>(args.gate) && rows_take_packets<T>(args.grad_output);
  in_packets ? launch<kPacketSize<T>, T, Real>(args) : launch<1, T, Real>(args);
}

}  // namespace

void gated_residual_backward_cuda(const GatedResidualGradArgs& args) {
  for_float_type(args.output.scalar_type(),
                 [&](auto element, auto real) { backward<decltype(element), decltype(real)>(args); });
}

}  // namespace prefusion::kernels::detail
