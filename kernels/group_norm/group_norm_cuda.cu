#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda_rows.h"
#include "kernels/cuda_sums.h"
#include "kernels/dispatch.h"
#include "kernels/group_norm/group_norm.h"
#include "kernels/group_norm/group_norm_cells.h"

namespace prefusion::kernels::detail {
namespace {

constexpr const char* kName = "group_norm";

enum class Step { kMeasure, kWrite, kAddGradients, kWriteGradient };

// A thread a packet of channels of a chunk, channels first.
template <Step kStep, int kSize, typename Cells>
__global__ void cells_kernel(Cells cells, int64_t items) {
  const int64_t packets = cells.width / kSize, count = items * cells.chunks * packets;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < count; index += stride) {
    const int64_t row = index / packets, column = (index - row * packets) * kSize;
    const int64_t item = row / cells.chunks, chunk = row - item * cells.chunks;
    if (kStep == Step::kMeasure) cells.measure(item, chunk, column);
    if (kStep == Step::kWrite) cells.write(item, chunk, column);
    if (kStep == Step::kAddGradients) cells.add_gradients(item, chunk, column);
    if (kStep == Step::kWriteGradient) cells.write_gradient(item, chunk, column);
  }
}

// A block a group.
template <typename Moments>
__global__ void moments_kernel(Moments moments, int64_t items) {
  for (int64_t index = blockIdx.x; index < items * moments.groups; index += gridDim.x) {
    const int64_t item = index / moments.groups, group = index % moments.groups;
    const auto mean = moments.mean_of(block_sum(moments.sum(item, group, threadIdx.x, kThreads)));
    __syncthreads();
    const auto squares = block_sum(moments.sum_of_squares(item, group, threadIdx.x, kThreads, mean));
    if (threadIdx.x == 0) {
      moments.mean[index] = mean;
      moments.rstd[index] = moments.rstd_of(squares);
    }
    __syncthreads();
  }
}

// A warp one of the three sums of a channel.
template <typename Totals>
__global__ void totals_kernel(Totals totals, int64_t items) {
  const int64_t columns = 3 * totals.width;
  for_warps(items * columns, [&](int64_t index, int lane) {
    const auto sum = warp_sum(totals.sum(index / columns, index % columns, lane, kWarpLanes));
    if (lane == 0) totals.totals[index] = sum;
  });
}

// A thread a group.
template <typename Gradients>
__global__ void groups_kernel(Gradients gradients, int64_t items) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < items * gradients.groups;
       index += stride) {
    gradients.write(index / gradients.groups, index % gradients.groups);
  }
}

template <int kSize, typename T, typename Real>
GroupNormCells<kSize, T, Real> cells_of(const GroupNormArgs& args) {
  return {.input = args.input.const_data_ptr<T>(),
          .shift = args.shift.const_data_ptr<T>(),
          .weight = args.weight.const_data_ptr<T>(),
          .bias = args.bias.const_data_ptr<T>(),
          .grad_output = nullptr,
          .output = data_or_null<T>(args.output),
          .mean = args.mean.const_data_ptr<Real>(),
          .rstd = args.rstd.const_data_ptr<Real>(),
          .group_means = nullptr,
          .partial = args.partial.mutable_data_ptr<Real>(),
          .pixels = args.input.size(1),
          .width = args.input.size(2),
          .groups = args.mean.size(1),
          .shift_stride = args.shift.stride(0),
          .chunk_pixels = kGroupNormChunk,
          .chunks = args.partial.size(1),
          .with_silu = args.with_silu};
}

template <Step kStep, int kSize, typename Cells>
void launch_cells(const Cells& cells, int64_t items) {
  const int64_t count = items * cells.chunks * (cells.width / kSize);
  cells_kernel<kStep, kSize><<<grid_size(count), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(cells, items);
  check_launch(kName);
}

template <int kSize, typename T, typename Real>
void launch_forward(const GroupNormArgs& args) {
  const auto cells = cells_of<kSize, T, Real>(args);
  const int64_t items = args.input.size(0);
  launch_cells<Step::kMeasure, kSize>(cells, items);
  const GroupMoments<Real> moments{.partial = args.partial.const_data_ptr<Real>(),
                                   .mean = args.mean.mutable_data_ptr<Real>(),
                                   .rstd = args.rstd.mutable_data_ptr<Real>(),
                                   .pixels = cells.pixels,
                                   .width = cells.width,
                                   .groups = cells.groups,
                                   .chunk_pixels = cells.chunk_pixels,
                                   .chunks = cells.chunks,
                                   .eps = static_cast<Real>(args.eps)};
  moments_kernel<<<grid_size(items * cells.groups * kThreads), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      moments, items);
  check_launch(kName);
  launch_cells<Step::kWrite, kSize>(cells, items);
}

template <int kSize, typename T, typename Real>
void launch_backward(const GroupNormGradArgs& args) {
  auto cells = cells_of<kSize, T, Real>(args.forward);
  const int64_t items = args.forward.input.size(0);
  cells.grad_output = args.grad_output.const_data_ptr<T>();
  cells.output = args.grad_input.mutable_data_ptr<T>();
  cells.group_means = args.group_means.const_data_ptr<Real>();
  const auto stream = c10::cuda::getCurrentCUDAStream();
  launch_cells<Step::kAddGradients, kSize>(cells, items);
  const GroupNormTotals<Real> totals{.partial = args.forward.partial.const_data_ptr<Real>(),
                                     .totals = args.totals.mutable_data_ptr<Real>(),
                                     .width = cells.width,
                                     .chunks = cells.chunks};
  totals_kernel<<<grid_size(items * 3 * cells.width * kWarpLanes), kThreads, 0, stream>>>(totals, items);
  check_launch(kName);
  const GroupGradients<T, Real> gradients{.totals = totals.totals,
                                          .weight = cells.weight,
                                          .rstd = cells.rstd,
                                          .group_means = args.group_means.mutable_data_ptr<Real>(),
                                          .grad_shift = args.grad_shift.mutable_data_ptr<Real>(),
                                          .pixels = cells.pixels,
                                          .width = cells.width,
                                          .groups = cells.groups};
  groups_kernel<<<grid_size(items * cells.groups), kThreads, 0, stream>>>(gradients, items);
  check_launch(kName);
  launch_cells<Step::kWriteGradient, kSize>(cells, items);
}

template <typename T, typename Real>
void forward(const GroupNormArgs& args) {
  const c10::cuda::CUDAGuard device(args.input.device());
  const bool in_packets = rows_take_packets<T>(args.input) && rows_take_packets<T>(args.shift);
  return in_packets ? launch_forward<kPacketSize<T>, T, Real>(args) : launch_forward<1, T, Real>(args);
}

template <typename T, typename Real>
void backward(const GroupNormGradArgs& args) {
  const c10::cuda::CUDAGuard device(args.forward.input.device());
  const bool in_packets = rows_take_packets<T>(args.forward.input) && rows_take_packets<T>(args.forward.shift) &&
                          rows_take_packets<T>(args.grad_output) && rows_take_packets<T>(args.grad_input);
  return in_packets ? launch_backward<kPacketSize<T>, T, Real>(args) : launch_backward<1, T, Real>(args);
}

}  // namespace

void group_norm_cuda(const GroupNormArgs& args) {
  for_float_type(args.input.scalar_type(),
                 [&](auto element, auto real) { forward<decltype(element), decltype(real)>(args); });
}

void group_norm_backward_cuda(const GroupNormGradArgs& args) {
  for_float_type(args.forward.input.scalar_type(),
                 [&](auto element, auto real) { backward<decltype(element), decltype(real)>(args); });
}

}  // namespace prefusion::kernels::detail
