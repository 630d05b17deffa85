#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda_rows.h"
#include "kernels/cuda_sums.h"
#include "kernels/dispatch.h"
#include "kernels/layer_norm_modulate/layer_norm_modulate.h"
#include "kernels/layer_norm_modulate/modulate_rows.h"

namespace prefusion::kernels::detail {
namespace {

constexpr const char* kName = "layer_norm_modulate";
static_assert(kModulateLanes == kWarpLanes, "a row is a warp's");

template <typename Rows>
__global__ void forward_kernel(Rows rows) {
  for_warps(rows.rows, [&](int64_t row, int lane) {
    const auto mean = rows.mean_of(warp_sum(rows.sum(row, lane)));
    rows.write(row, lane, mean, rows.rstd_of(warp_sum(rows.sum_of_squares(row, lane, mean))));
  });
}

template <typename Rows>
__global__ void backward_kernel(Rows rows) {
  for_warps(rows.rows, [&](int64_t row, int lane) {
    auto sums = rows.gradient_sums(row, lane);
    sums.grads = warp_sum(sums.grads);
    sums.products = warp_sum(sums.products);
    rows.write_gradient(row, lane, sums);
  });
}

// Grid: columns in blocks of kThreads, then (item, chunk) in a stride.
template <typename Columns>
__global__ void chunks_kernel(Columns columns, int64_t num_items) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns.width) return;
  for (int64_t index = blockIdx.y; index < num_items * columns.chunks; index += gridDim.y) {
    columns.add_chunk(index / columns.chunks, index % columns.chunks, column);
  }
}

template <typename Columns>
__global__ void totals_kernel(Columns columns, int64_t num_items) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns.width) return;
  for (int64_t item = blockIdx.y; item < num_items; item += gridDim.y) columns.add_chunks_of(item, column);
}

dim3 column_grid(int64_t width, int64_t count) {
  constexpr int64_t kMaxBlocks = 65535;
  return {static_cast<unsigned>((width + kThreads - 1) / kThreads), static_cast<unsigned>(std::min(count, kMaxBlocks))};
}

template <int kSize, typename T, typename Real>
ModulateRows<kSize, T, Real> rows_of(const LayerNormModulateArgs& args) {
  return {.input = args.input.const_data_ptr<T>(),
          .scale = args.scale.const_data_ptr<T>(),
          .shift = data_or_null<T>(args.shift),
          .grad_output = nullptr,
          .output = data_or_null<T>(args.output),
          .mean = args.mean.mutable_data_ptr<Real>(),
          .rstd = args.rstd.mutable_data_ptr<Real>(),
          .rows = args.input.size(0) * args.input.size(1),
          .rows_per_item = args.input.size(1),
          .width = args.input.size(2),
          .scale_stride = args.scale.stride(0),
          .shift_stride = args.shift.defined() ? args.shift.stride(0) : 0,
          .eps = static_cast<Real>(args.eps)};
}

template <int kSize, typename T, typename Real>
void launch_forward(const LayerNormModulateArgs& args) {
  const auto rows = rows_of<kSize, T, Real>(args);
  forward_kernel<<<grid_size(rows.rows * kModulateLanes), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(rows);
  check_launch(kName);
}

template <int kSize, typename T, typename Real>
void launch_backward(const LayerNormModulateGradArgs& args) {
  auto rows = rows_of<kSize, T, Real>(args.forward);
  rows.grad_output = args.grad_output.const_data_ptr<T>();
  rows.output = args.grad_input.mutable_data_ptr<T>();
  backward_kernel<<<grid_size(rows.rows * kModulateLanes), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(rows);
  check_launch(kName);
}

template <typename T, typename Real>
void launch_columns(const LayerNormModulateGradArgs& args) {
  const at::Tensor& input = args.forward.input;
  const int64_t num_items = input.size(0), rows_per_item = input.size(1), width = input.size(2);
  const ModulateColumns<T, Real> columns{.input = input.const_data_ptr<T>(),
                                         .grad_output = args.grad_output.const_data_ptr<T>(),
                                         .mean = args.forward.mean.const_data_ptr<Real>(),
                                         .rstd = args.forward.rstd.const_data_ptr<Real>(),
                                         .partial = args.partial.mutable_data_ptr<Real>(),
                                         .grad_scale = args.grad_scale.mutable_data_ptr<Real>(),
                                         .grad_shift = args.grad_shift.mutable_data_ptr<Real>(),
                                         .rows_per_item = rows_per_item,
                                         .width = width,
                                         .chunk_rows = kModulateChunk,
                                         .chunks = args.partial.size(1)};
  const auto stream = c10::cuda::getCurrentCUDAStream();
  chunks_kernel<<<column_grid(width, num_items * columns.chunks), kThreads, 0, stream>>>(columns, num_items);
  check_launch(kName);
  totals_kernel<<<column_grid(width, num_items), kThreads, 0, stream>>>(columns, num_items);
  check_launch(kName);
}

template <typename T, typename Real>
void forward(const LayerNormModulateArgs& args) {
  const c10::cuda::CUDAGuard device(args.input.device());
  const bool in_packets = rows_take_packets<T>(args.input) && rows_take_packets<T>(args.scale) &&
                          rows_take_packets<T>(args.shift) && rows_take_packets<T>(args.output);
  return in_packets ? launch_forward<kPacketSize<T>, T, Real>(args) : launch_forward<1, T, Real>(args);
}

template <typename T, typename Real>
void backward(const LayerNormModulateGradArgs& args) {
  const c10::cuda::CUDAGuard device(args.forward.input.device());
  const bool in_packets = rows_take_packets<T>(args.forward.input) && rows_take_packets<T>(args.forward.scale) &&
                          rows_take_packets<T>(args.grad_output) && rows_take_packets<T>(args.grad_input);
  in_packets ? launch_backward<kPacketSize<T>, T, Real>(args) : launch_backward<1, T, Real>(args);
  if (args.partial.defined()) launch_columns<T, Real>(args);
}

}  // namespace

void layer_norm_modulate_cuda(const LayerNormModulateArgs& args) {
  for_float_type(args.input.scalar_type(),
                 [&](auto element, auto real) { forward<decltype(element), decltype(real)>(args); });
}

void layer_norm_modulate_backward_cuda(const LayerNormModulateGradArgs& args) {
  for_float_type(args.forward.input.scalar_type(),
                 [&](auto element, auto real) { backward<decltype(element), decltype(real)>(args); });
}

}  // namespace prefusion::kernels::detail
