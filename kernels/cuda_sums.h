#pragma once

#include "kernels/cuda_rows.h"

// Sums over the threads of a warp or a block, as fixed trees: they repeat to the bit. Included by .cu files only.
namespace prefusion::kernels {

// Over a warp, the same bits in every lane: each step adds two numbers that both partners hold.
template <typename Real>
__device__ Real warp_sum(Real value) {
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// Over a block of kThreads, in every thread. All of them must come to __syncthreads() before the next call.
template <typename Real>
__device__ Real block_sum(Real value) {
  __shared__ Real shared[kThreads];
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  return shared[0];
}

}  // namespace prefusion::kernels
