#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cuda_launch.h"
#include "kernels/packet.h"

// What kernels on rows of tensors share. Included by .cu files only.
namespace prefusion::kernels {

template <typename Real>
Real* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<Real>() : nullptr;
}

// Whether every row [.., D] of a tensor can be read in packets; true of what is not there.
template <typename T>
bool rows_take_packets(const at::Tensor& tensor) {
  return !tensor.defined() ||
         (takes_packets(tensor.const_data_ptr<T>(), tensor.size(-1)) && tensor.stride(0) % kPacketSize<T> == 0);
}

constexpr int kWarpLanes = 32;

// Calls step(index, lane) for every index below `count`, a warp each; all lanes of a warp come to it together.
template <typename Step>
__device__ void for_warps(int64_t count, const Step& step) {
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / kWarpLanes);
  for (int64_t index = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpLanes; index < count;
       index += warps) {
    step(index, static_cast<int>(threadIdx.x % kWarpLanes));
  }
}

}  // namespace prefusion::kernels
