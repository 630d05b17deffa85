#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda_rows.h"
#include "kernels/cuda_sums.h"
#include "kernels/dispatch.h"
#include "kernels/rms_norm_rotary/head_rows.h"
#include "kernels/rms_norm_rotary/rms_norm_rotary.h"

namespace prefusion::kernels::detail {
namespace {

constexpr const char* kName = "rms_norm_rotary";
static_assert(kHeadLanes == kWarpLanes, "a head is a warp's");

template <typename Rows>
__global__ void forward_kernel(Rows rows) {
  for_warps(rows.rows, [&](int64_t row, int lane) {
    rows.write(row, lane, rows.rstd_of(warp_sum(rows.sum_of_squares(row, lane))));
  });
}

template <typename Rows>
__global__ void backward_kernel(Rows rows) {
  for_warps(rows.rows,
            [&](int64_t row, int lane) { rows.write_gradient(row, lane, warp_sum(rows.product_sum(row, lane))); });
}

// A thread a pair of channels of a chunk of rows, channels first.
template <typename Columns>
__global__ void chunks_kernel(Columns columns) {
  const int64_t pairs = columns.heads.width / 2, stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < columns.chunks * pairs;
       index += stride) {
    columns.add_chunk(index / pairs, index % pairs * 2);
  }
}

// A warp a channel.
template <typename Columns>
__global__ void totals_kernel(Columns columns) {
  for_warps(columns.heads.width, [&](int64_t column, int lane) {
    const auto total = warp_sum(columns.sum(column, lane));
    if (lane == 0) columns.grad_weight[column] = total;
  });
}

template <typename T, typename Real>
HeadRows<T, Real> rows_of(const RmsNormRotaryArgs& args) {
  const bool is_turned = args.cosines.defined();
  return {.states = args.states.const_data_ptr<T>(),
          .grad_output = nullptr,
          .output = args.output.mutable_data_ptr<T>(),
          .weight = args.weight.const_data_ptr<Real>(),
          .cosines = is_turned ? args.cosines.const_data_ptr<float>() : nullptr,
          .sines = is_turned ? args.sines.const_data_ptr<float>() : nullptr,
          .rstd = args.rstd.mutable_data_ptr<Real>(),
          .rows = args.states.size(0),
          .width = args.states.size(1),
          .tokens = is_turned ? args.cosines.size(0) : 1,
          .rows_per_token = args.rows_per_token,
          .eps = static_cast<Real>(args.eps)};
}

template <typename T, typename Real>
void forward(const RmsNormRotaryArgs& args) {
  const c10::cuda::CUDAGuard device(args.states.device());
  const auto rows = rows_of<T, Real>(args);
  forward_kernel<<<grid_size(rows.rows * kHeadLanes), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(rows);
  check_launch(kName);
}

template <typename T, typename Real>
void backward(const RmsNormRotaryGradArgs& args) {
  const c10::cuda::CUDAGuard device(args.forward.states.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  auto rows = rows_of<T, Real>(args.forward);
  rows.grad_output = args.grad_output.const_data_ptr<T>();
  backward_kernel<<<grid_size(rows.rows * kHeadLanes), kThreads, 0, stream>>>(rows);
  check_launch(kName);
  if (!args.partial.defined()) return;
  const HeadColumns<T, Real> columns{.heads = rows,
                                     .partial = args.partial.mutable_data_ptr<Real>(),
                                     .grad_weight = args.grad_weight.mutable_data_ptr<Real>(),
                                     .chunk_rows = kHeadRowsChunk,
                                     .chunks = args.partial.size(0)};
  chunks_kernel<<<grid_size(columns.chunks * (rows.width / 2)), kThreads, 0, stream>>>(columns);
  check_launch(kName);
  totals_kernel<<<grid_size(rows.width * kHeadLanes), kThreads, 0, stream>>>(columns);
  check_launch(kName);
}

}  // namespace

void rms_norm_rotary_cuda(const RmsNormRotaryArgs& args) {
  for_float_type(args.states.scalar_type(),
                 [&](auto element, auto real) { forward<decltype(element), decltype(real)>(args); });
}

void rms_norm_rotary_backward_cuda(const RmsNormRotaryGradArgs& args) {
  for_float_type(args.forward.states.scalar_type(),
                 [&](auto element, auto real) { backward<decltype(element), decltype(real)>(args); });
}

}  // namespace prefusion::kernels::detail
