#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda_launch.h"
#include "kernels/dispatch.h"
#include "kernels/geglu/geglu.h"
#include "kernels/geglu/geglu_packets.h"

namespace prefusion::kernels::detail {
namespace {

template <bool kBackward, typename Packets>
__global__ void geglu_kernel(Packets packets, uint32_t per_row) {
  for (PacketWalk walk(blockIdx.x * blockDim.x + threadIdx.x, gridDim.x * blockDim.x, per_row);
       walk.row() < packets.rows; walk.advance()) {
    if constexpr (kBackward) {
      packets.backward(walk.row(), walk.place());
    } else {
      packets.forward(walk.row(), walk.place());
    }
  }
}

template <bool kBackward, int kSize, typename T, typename Real>
void launch_packets(const T* input, const T* grad_output, T* output, int64_t rows, int64_t width) {
  const GegluPackets<kSize, T, Real> packets{
      .input = input, .grad_output = grad_output, .output = output, .rows = rows, .width = width};
  const int64_t per_row = width / kSize;
  geglu_kernel<kBackward><<<grid_size(rows * per_row), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      packets, static_cast<uint32_t>(per_row));
  check_launch("geglu");
}

// `grad_output` is undefined forward; `output` backward the gradient of the input.
template <bool kBackward, typename T, typename Real>
void launch(const at::Tensor& input_tensor, const at::Tensor& grad_output_tensor, at::Tensor& output_tensor) {
  const c10::cuda::CUDAGuard device(input_tensor.device());
  const T* input = input_tensor.const_data_ptr<T>();
  const T* grad_output = kBackward ? grad_output_tensor.const_data_ptr<T>() : nullptr;
  T* output = output_tensor.mutable_data_ptr<T>();
  const int64_t width = input_tensor.size(-1) / 2, rows = input_tensor.numel() / (2 * width);
  if (takes_packets(input, width) && takes_packets(output, width) && takes_packets(grad_output, width)) {
    launch_packets<kBackward, kPacketSize<T>, T, Real>(input, grad_output, output, rows, width);
  } else {
    launch_packets<kBackward, 1, T, Real>(input, grad_output, output, rows, width);
  }
}

template <bool kBackward>
void launch_for_dtype(const at::Tensor& input, const at::Tensor& grad_output, at::Tensor& output) {
  for_float_type(input.scalar_type(), [&](auto element, auto real) {
    launch<kBackward, decltype(element), decltype(real)>(input, grad_output, output);
  });
}

}  // namespace

void geglu_cuda(const at::Tensor& input, at::Tensor& output) {
  launch_for_dtype<false>(input, {}, output);
}

void geglu_backward_cuda(const at::Tensor& input, const at::Tensor& grad_output, at::Tensor& grad_input) {
  launch_for_dtype<true>(input, grad_output, grad_input);
}

}  // namespace prefusion::kernels::detail
