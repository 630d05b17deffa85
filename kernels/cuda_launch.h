#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

#include "core/error.h"

// What every .cu file needs around a launch; included by .cu files only.
namespace prefusion::kernels {

constexpr int kThreads = 256;

// Blocks for a grid-stride loop over `count` items: at most 16 a multiprocessor of a large GPU, the loop does the rest.
inline unsigned grid_size(int64_t count) {
  constexpr int64_t kMaxBlocks = 132 * 16;
  return static_cast<unsigned>(std::clamp<int64_t>((count + kThreads - 1) / kThreads, 1, kMaxBlocks));
}

// Run error with the runtime's message when the last launch was refused.
inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  check_run(error == cudaSuccess, op, ": CUDA launch failed (", cudaGetErrorString(error), ")");
}

}  // namespace prefusion::kernels
