#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

#include "kernels/attention/fragments.h"

// The products of a group of four warps, as instructions: wgmma.mma_async m64nNk16 (PTX ISA, "Asynchronous warpgroup
// level matrix instructions") adds 16 deep to 64 rows and N columns. Included by .cu files for sm_90a only.
namespace prefusion::kernels::hopper {

template <int columns, typename Element>
struct GroupProduct;

// Operands %0, %1, ... are the N / 2 sums a lane has; the numbers of the ones behind them follow.
#define PREFUSION_WORDS_24                                                 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23"
#define PREFUSION_WORDS_32 \
  PREFUSION_WORDS_24       \
  ", "                     \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define PREFUSION_WORDS_40 \
  PREFUSION_WORDS_32       \
  ", "                     \
  "%32, %33, %34, %35, %36, %37, %38, %39"
#define PREFUSION_WORDS_48 \
  PREFUSION_WORDS_40       \
  ", "                     \
  "%40, %41, %42, %43, %44, %45, %46, %47"
#define PREFUSION_WORDS_64 \
  PREFUSION_WORDS_48       \
  ", "                     \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PREFUSION_WORDS_80 \
  PREFUSION_WORDS_64       \
  ", "                     \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define PREFUSION_SUM(block) \
  "+f"(sums[block].values[0]), "+f"(sums[block].values[1]), "+f"(sums[block].values[2]), "+f"(sums[block].values[3])
#define PREFUSION_SUMS_24 \
  PREFUSION_SUM(0), PREFUSION_SUM(1), PREFUSION_SUM(2), PREFUSION_SUM(3), PREFUSION_SUM(4), PREFUSION_SUM(5)
#define PREFUSION_SUMS_32 PREFUSION_SUMS_24, PREFUSION_SUM(6), PREFUSION_SUM(7)
#define PREFUSION_SUMS_40 PREFUSION_SUMS_32, PREFUSION_SUM(8), PREFUSION_SUM(9)
#define PREFUSION_SUMS_48 PREFUSION_SUMS_40, PREFUSION_SUM(10), PREFUSION_SUM(11)
#define PREFUSION_SUMS_64 PREFUSION_SUMS_48, PREFUSION_SUM(12), PREFUSION_SUM(13), PREFUSION_SUM(14), PREFUSION_SUM(15)
#define PREFUSION_SUMS_80 PREFUSION_SUMS_64, PREFUSION_SUM(16), PREFUSION_SUM(17), PREFUSION_SUM(18), PREFUSION_SUM(19)

// Both operands in shared memory, elements of a row as depth; or the left one in registers, and rows of the right one
// as depth.
#define PREFUSION_GROUP_PRODUCT(columns, count, Element, type, a, b, c, d, e)                                      \
  template <>                                                                                                      \
  struct GroupProduct<columns, Element> {                                                                          \
    template <typename Warp>                                                                                       \
    static __device__ void add(blockwise::Accumulator<Warp> (&sums)[columns / 8], uint64_t left, uint64_t right) { \
      asm volatile(                                                                                                \
          "{\n.reg .pred p;\nsetp.eq.u32 p, 0, 0;\n"                                                               \
          "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" PREFUSION_WORDS_##count       \
          "}, " a ", " b ", p, 1, 1, 0, 0;\n}\n"                                                                   \
          : PREFUSION_SUMS_##count                                                                                 \
          : "l"(left), "l"(right));                                                                                \
    }                                                                                                              \
    template <typename Warp>                                                                                       \
    static __device__ void add(blockwise::Accumulator<Warp> (&sums)[columns / 8],                                  \
                               const blockwise::LeftFragment<Warp>& left, uint64_t right) {                        \
      asm volatile(                                                                                                \
          "{\n.reg .pred p;\nsetp.eq.u32 p, 0, 0;\n"                                                               \
          "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" PREFUSION_WORDS_##count       \
          "}, {" a ", " b ", " c ", " d "}, " e ", p, 1, 1, 1;\n}\n"                                               \
          : PREFUSION_SUMS_##count                                                                                 \
          : "r"(left.words[0]), "r"(left.words[1]), "r"(left.words[2]), "r"(left.words[3]), "l"(right));           \
    }                                                                                                              \
  };
#define PREFUSION_GROUP_PRODUCTS(columns, count, a, b, c, d, e)                 \
  PREFUSION_GROUP_PRODUCT(columns, count, c10::BFloat16, "bf16", a, b, c, d, e) \
  PREFUSION_GROUP_PRODUCT(columns, count, c10::Half, "f16", a, b, c, d, e)

PREFUSION_GROUP_PRODUCTS(48, 24, "%24", "%25", "%26", "%27", "%28")
PREFUSION_GROUP_PRODUCTS(64, 32, "%32", "%33", "%34", "%35", "%36")
PREFUSION_GROUP_PRODUCTS(80, 40, "%40", "%41", "%42", "%43", "%44")
PREFUSION_GROUP_PRODUCTS(96, 48, "%48", "%49", "%50", "%51", "%52")
PREFUSION_GROUP_PRODUCTS(128, 64, "%64", "%65", "%66", "%67", "%68")
PREFUSION_GROUP_PRODUCTS(160, 80, "%80", "%81", "%82", "%83", "%84")

#undef PREFUSION_GROUP_PRODUCTS
#undef PREFUSION_GROUP_PRODUCT
#undef PREFUSION_SUM

}  // namespace prefusion::kernels::hopper
