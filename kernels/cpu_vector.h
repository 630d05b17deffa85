#pragma once

#include "kernels/inlining.h"

// For the CPU versions of operations: a plain loop is compiled three times, as the build's flags say, for AVX2 and for
// AVX-512, and the machine chooses. Functions that carry the attribute keep the instructions to themselves; flags for a
// whole file would let the linker take a header's inline function from it for every machine.
#if defined(__x86_64__)
#define PREFUSION_AVX2 __attribute__((target("avx2,fma")))
#define PREFUSION_AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define PREFUSION_AVX2
#define PREFUSION_AVX512
#endif

namespace prefusion::kernels {

// The fastest of three versions of a function that this machine runs.
template <typename Function>
Function* fastest(Function* plain, Function* avx2, Function* avx512) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return has_avx512 ? avx512 : has_avx2 ? avx2 : plain;
#else
  return plain;
#endif
}

}  // namespace prefusion::kernels

// template <typename T, typename Real> struct Name, whose best() is function(Args<T, Real>) as this machine runs it
// fastest. For functions that become part of their callers (PREFUSION_INLINE).
#define PREFUSION_VECTOR_STEP(Name, function, Args)                                    \
  template <typename T, typename Real>                                                 \
  struct Name {                                                                        \
    static void plain(const Args<T, Real>& args) { function(args); }                   \
    PREFUSION_AVX2 static void avx2(const Args<T, Real>& args) { function(args); }     \
    PREFUSION_AVX512 static void avx512(const Args<T, Real>& args) { function(args); } \
    static auto best() { return fastest(plain, avx2, avx512); }                        \
  }
