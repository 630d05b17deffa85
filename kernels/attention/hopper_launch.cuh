#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda.h>

#include "kernels/attention/attention_launch.h"
#include "kernels/attention/hopper_warp.h"
#include "kernels/cuda_launch.h"

// How blocks for sm_90a are launched; attention_hopper.cu and attention_hopper_backward.cu instantiate them, side by
// side.
namespace prefusion::kernels::hopper {

// A grid has a column a block of rows, a row a head, a layer an item.
template <typename Block>
__global__ void __launch_bounds__(kBlockThreads, 1) block_kernel(const __grid_constant__ typename Block::Args args) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(kPatternBytes) char shared[];
  HopperWarp warp(shared, Block::Memory::kFloatsAt, Block::Memory::kBarriersAt);
  warp.make_barriers();
  Block(warp, args, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x)).run();
#endif
}

// Blocks own the rows of `own` [B, H, rows, D].
template <typename Block>
void launch_blocks(const typename Block::Args& args, const at::Tensor& own) {
  const auto kernel = block_kernel<Block>;
  constexpr int kBytes = Block::Memory::kBytes;
  C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const dim3 grid(static_cast<unsigned>(blockwise::divide_up(own.size(2), kBlockRows)),
                  static_cast<unsigned>(own.size(1)), static_cast<unsigned>(own.size(0)));
  kernel<<<grid, kBlockThreads, kBytes, c10::cuda::getCurrentCUDAStream()>>>(args);
  check_launch("attention");
}

// Boxes of 64 elements and `box_rows` rows of tensor [B, H, rows, D]; what is beyond a row or its head is fetched as 0.
CUtensorMap map_of(const at::Tensor& tensor, int box_rows);

}  // namespace prefusion::kernels::hopper
