#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda_launch.h"
#include "kernels/cuda_sums.h"
#include "kernels/dispatch.h"
#include "kernels/item_error/item_error.h"

namespace prefusion::kernels::detail {
namespace {

// Elements of an item that one block sums; with the fixed tree below the order of summation depends on the shape alone.
constexpr int64_t kChunk = 4096;

// Grid-stride over (item, chunk): sums[item * num_chunks + chunk] = sum of squares of that chunk.
template <typename T, typename Acc>
__global__ void chunk_sums_kernel(const T* __restrict__ prediction, const Acc* __restrict__ target,
                                  Acc* __restrict__ sums, int64_t num_items, int64_t num_chunks, int64_t num_elements) {
  for (int64_t index = blockIdx.x; index < num_items * num_chunks; index += gridDim.x) {
    const int64_t first = index % num_chunks * kChunk;
    const int64_t count = num_elements - first < kChunk ? num_elements - first : kChunk;
    const int64_t offset = index / num_chunks * num_elements + first;
    Acc sum = 0;
    for (int64_t j = threadIdx.x; j < count; j += kThreads) {
      const Acc residual = static_cast<Acc>(prediction[offset + j]) - target[offset + j];
      sum += residual * residual;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[index] = sum;
    __syncthreads();  // the shared memory is used again by the next chunk
  }
}

// One block an item adds its chunk sums.
template <typename Acc>
__global__ void item_means_kernel(const Acc* __restrict__ sums, Acc* __restrict__ error, int64_t num_items,
                                  int64_t num_chunks, int64_t num_elements) {
  for (int64_t item = blockIdx.x; item < num_items; item += gridDim.x) {
    Acc sum = 0;
    for (int64_t chunk = threadIdx.x; chunk < num_chunks; chunk += kThreads) sum += sums[item * num_chunks + chunk];
    sum = block_sum(sum);
    if (threadIdx.x == 0) error[item] = sum / static_cast<Acc>(num_elements);
    __syncthreads();
  }
}

template <typename T, typename Acc>
__global__ void backward_kernel(const T* __restrict__ prediction, const Acc* __restrict__ target,
                                const Acc* __restrict__ grad_error, T* __restrict__ grad_prediction, int64_t total,
                                int64_t num_elements) {
  const Acc two_over_d = Acc(2) / static_cast<Acc>(num_elements);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; j < total; j += stride) {
    const Acc scale = grad_error[j / num_elements] * two_over_d;
    grad_prediction[j] = static_cast<T>(scale * (static_cast<Acc>(prediction[j]) - target[j]));
  }
}

template <typename T, typename Acc>
void forward(const at::Tensor& prediction, const at::Tensor& target, at::Tensor& error, int64_t num_elements) {
  const c10::cuda::CUDAGuard device(prediction.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t num_items = error.numel();
  const int64_t num_chunks = (num_elements + kChunk - 1) / kChunk;
  const at::Tensor sums = at::empty({num_items, num_chunks}, error.options());
  // grid_size counts threads; here a block is the unit of work.
  chunk_sums_kernel<T, Acc><<<grid_size(num_items * num_chunks * kThreads), kThreads, 0, stream>>>(
      prediction.const_data_ptr<T>(), target.const_data_ptr<Acc>(), sums.mutable_data_ptr<Acc>(), num_items, num_chunks,
      num_elements);
  check_launch("item_error");
  item_means_kernel<Acc><<<grid_size(num_items * kThreads), kThreads, 0, stream>>>(
      sums.const_data_ptr<Acc>(), error.mutable_data_ptr<Acc>(), num_items, num_chunks, num_elements);
  check_launch("item_error");
}

template <typename T, typename Acc>
void backward(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& grad_error,
              at::Tensor& grad_prediction, int64_t num_elements) {
  const c10::cuda::CUDAGuard device(prediction.device());
  backward_kernel<T, Acc><<<grid_size(prediction.numel()), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      prediction.const_data_ptr<T>(), target.const_data_ptr<Acc>(), grad_error.const_data_ptr<Acc>(),
      grad_prediction.mutable_data_ptr<T>(), prediction.numel(), num_elements);
  check_launch("item_error backward");
}

}  // namespace

void item_error_cuda(const at::Tensor& prediction, const at::Tensor& target, at::Tensor& error, int64_t num_elements) {
  for_float_type(prediction.scalar_type(), [&](auto element, auto real) {
    forward<decltype(element), decltype(real)>(prediction, target, error, num_elements);
  });
}

void item_error_backward_cuda(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& grad_error,
                              at::Tensor& grad_prediction, int64_t num_elements) {
  for_float_type(prediction.scalar_type(), [&](auto element, auto real) {
    backward<decltype(element), decltype(real)>(prediction, target, grad_error, grad_prediction, num_elements);
  });
}

}  // namespace prefusion::kernels::detail
