#pragma once

// Becomes part of the function that calls it: on the CPU it is compiled for that function's instructions
// (kernels/cpu_vector.h), on the GPU it is device code.
#ifdef __CUDACC__
#define PREFUSION_INLINE __host__ __device__ __forceinline__
#else
#define PREFUSION_INLINE inline __attribute__((always_inline))
#endif

// Before a loop whose bounds are known: what it indexes shall live in registers.
#if defined(__CUDA_ARCH__) || (defined(__clang__) && !defined(__CUDACC__))
#define PREFUSION_UNROLL _Pragma("unroll")
#elif defined(__GNUC__) && !defined(__CUDACC__)
#define PREFUSION_UNROLL _Pragma("GCC unroll 16")
#else
#define PREFUSION_UNROLL
#endif
