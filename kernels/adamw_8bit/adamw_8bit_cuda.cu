#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/adamw_8bit/adamw_8bit.h"
#include "kernels/adamw_8bit/byte_threads.h"
#include "kernels/cuda_launch.h"

namespace prefusion::kernels::detail {
namespace {

static_assert(kThreads == kByteBlock, "a thread an element");

// The largest of a block's threads, in all of them; `shared` has kThreads places and is used again after a barrier.
__device__ float block_largest(float value, float* shared) {
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] = larger(shared[threadIdx.x], shared[threadIdx.x + half]);
    __syncthreads();
  }
  const float result = shared[0];
  __syncthreads();
  return result;
}

template <typename T>
__global__ void step_kernel(ByteThreads<T> threads, const float* __restrict__ table1,
                            const float* __restrict__ middles1, const float* __restrict__ table2,
                            const float* __restrict__ middles2, const float* __restrict__ count,
                            AdamWConstants constants, GatePointers gate, int64_t blocks) {
  if (gate.is_shut()) return;
  const AdamWFactors factors = adamw_factors(constants, gate.gradient_factor(), *count);
  __shared__ float tables[2][256], middles[2][256], largest[kThreads];
  tables[0][threadIdx.x] = table1[threadIdx.x];
  tables[1][threadIdx.x] = table2[threadIdx.x];
  if (threadIdx.x < 255) {
    middles[0][threadIdx.x] = middles1[threadIdx.x];
    middles[1][threadIdx.x] = middles2[threadIdx.x];
  }
  __syncthreads();
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t element = block * kThreads + threadIdx.x;
    const MovedElement moved = threads.move(block, element, tables[0], tables[1], factors);
    const float scale1 = block_largest(larger(0, moved.exp_avg), largest);
    const float scale2 = block_largest(larger(0, moved.exp_avg_sq), largest);
    threads.write(block, element, moved, scale1, scale2, middles[0], middles[1], threadIdx.x == 0);
  }
}

template <typename T>
void launch(const AdamW8bitArgs& args) {
  const ByteThreads<T> threads{.parameter = args.parameter.defined() ? args.parameter.mutable_data_ptr<T>() : nullptr,
                               .master = args.master.mutable_data_ptr<float>(),
                               .gradient = args.gradient.const_data_ptr<T>(),
                               .codes1 = args.exp_avg.codes.mutable_data_ptr<uint8_t>(),
                               .codes2 = args.exp_avg_sq.codes.mutable_data_ptr<uint8_t>(),
                               .scales1 = args.exp_avg.scales.mutable_data_ptr<float>(),
                               .scales2 = args.exp_avg_sq.scales.mutable_data_ptr<float>(),
                               .length = args.master.numel()};
  const int64_t blocks = args.exp_avg.scales.numel();
  step_kernel<T><<<grid_size(blocks * kThreads), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      threads, args.exp_avg.table.const_data_ptr<float>(), args.exp_avg.middles.const_data_ptr<float>(),
      args.exp_avg_sq.table.const_data_ptr<float>(), args.exp_avg_sq.middles.const_data_ptr<float>(),
      args.count.const_data_ptr<float>(), adamw_constants(args.settings), gate_pointers(args.gate), blocks);
  check_launch("adamw_8bit_step");
}

}  // namespace

void adamw_8bit_step_cuda(const AdamW8bitArgs& args) {
  const c10::cuda::CUDAGuard device(args.master.device());
  switch (args.gradient.scalar_type()) {
    case at::kBFloat16: return launch<at::BFloat16>(args);
    case at::kHalf: return launch<at::Half>(args);
    default: return launch<float>(args);
  }
}

}  // namespace prefusion::kernels::detail
