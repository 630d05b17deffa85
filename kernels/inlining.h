#pragma once

// Becomes part of the function that calls it: on the CPU it is compiled for that function's instructions
// (kernels/cpu_vector.h), on the GPU it is device code.
#ifdef __CUDACC__
#define PREFUSION_INLINE __host__ __device__ __forceinline__
#else
#define PREFUSION_INLINE inline __attribute__((always_inline))
#endif

// Before a loop whose bounds are known: what it indexes shall live in registers.
#ifdef __CUDA_ARCH__
#define PREFUSION_UNROLL _Pragma("unroll")
#else
#define PREFUSION_UNROLL
#endif
