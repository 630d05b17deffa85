#pragma once

#include <c10/cuda/CUDAException.h>

#include "kernels/attention/attention_launch.h"
#include "kernels/attention/backward_block.h"
#include "kernels/attention/cuda_warp.h"
#include "kernels/attention/forward_block.h"
#include "kernels/cuda_launch.h"

// The kernels of any head size; attention_small_heads.cu and attention_large_heads.cu instantiate them, side by side.
namespace prefusion::kernels::blockwise {

// A grid has a column a block of rows, a row a head, a layer an item.
template <typename Block, typename Args>
__global__ void __launch_bounds__(kBlockThreads) block_kernel(const Args args, int num_elements) {
  extern __shared__ __align__(16) char shared[];
  CudaWarp warp(shared, num_elements);
  Block(warp, args, blockIdx.z, blockIdx.y, static_cast<int>(blockIdx.x)).run();
}

template <typename Block, typename Args>
void launch_blocks(const Args& args, int64_t num_items, int64_t num_heads, int64_t rows, int num_elements,
                   int num_bytes, cudaStream_t stream) {
  const auto kernel = block_kernel<Block, Args>;
  // More than 48 KB must be asked for.
  C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, num_bytes));
  const dim3 grid(static_cast<unsigned>(divide_up(rows, kBlockRows)), static_cast<unsigned>(num_heads),
                  static_cast<unsigned>(num_items));
  kernel<<<grid, kBlockThreads, num_bytes, stream>>>(args, num_elements);
  check_launch("attention");
}

template <int head_size, int tile_rows, typename Element>
void launch_forward_tiles(const AttentionArgs<Element>& args, int64_t num_items, cudaStream_t stream) {
  using Shape = BlockShape<head_size, tile_rows>;
  launch_blocks<ForwardBlock<Shape, Element, CudaWarp>>(args, num_items, args.num_heads, args.num_queries,
                                                        Shape::kForwardElements, Shape::kForwardBytes, stream);
}

// Tiles as large as shared memory holds two blocks of; the tokens of a prompt in one.
template <int head_size, typename Element>
void launch_forward(const AttentionArgs<Element>& args, int64_t num_items, cudaStream_t stream) {
  if constexpr (head_size <= 96) {
    if (args.num_keys <= 80) return launch_forward_tiles<head_size, 80>(args, num_items, stream);
  }
  launch_forward_tiles<head_size, head_size <= 96 ? 64 : 32>(args, num_items, stream);
}

template <int head_size, typename Element>
void launch_backward(const AttentionGradArgs<Element>& args, int64_t num_items, cudaStream_t stream) {
  using Shape = BlockShape<head_size, head_size <= 64 ? 64 : 32>;
  const auto& forward = args.forward;
  launch_blocks<QueryGradBlock<Shape, Element, CudaWarp>>(args, num_items, forward.num_heads, forward.num_queries,
                                                          Shape::kBackwardElements, Shape::kBackwardBytes, stream);
  launch_blocks<KeyGradBlock<Shape, Element, CudaWarp>>(args, num_items, forward.num_heads, forward.num_keys,
                                                        Shape::kBackwardElements, Shape::kBackwardBytes, stream);
}

}  // namespace prefusion::kernels::blockwise

#define PREFUSION_ATTENTION_HEAD(size)                                                                 \
  namespace prefusion::kernels::blockwise {                                                            \
  template void launch_forward<size>(const AttentionArgs<c10::BFloat16>&, int64_t, cudaStream_t);      \
  template void launch_forward<size>(const AttentionArgs<c10::Half>&, int64_t, cudaStream_t);          \
  template void launch_backward<size>(const AttentionGradArgs<c10::BFloat16>&, int64_t, cudaStream_t); \
  template void launch_backward<size>(const AttentionGradArgs<c10::Half>&, int64_t, cudaStream_t);     \
  }
