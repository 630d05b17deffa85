#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/attention/block_shape.h"

namespace prefusion::kernels::blockwise {

// A warp of the GPU, from sm_80 on: the operations of fragments.h as the instructions they are made for. Included by
// .cu files only.
class CudaWarp {
 public:
  using Float = float;
  using Word = uint32_t;
  static constexpr float kInfinity = __builtin_huge_valf();

  // `shared` holds `num_elements` 16-bit elements, then floats.
  __device__ CudaWarp(char* shared, int num_elements)
      : elements_(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
        floats_(reinterpret_cast<float*>(shared + 2 * num_elements)) {}

  __device__ int lane() const { return static_cast<int>(threadIdx.x) % kLanes; }
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int index() const { return __shfl_sync(kAll, static_cast<int>(threadIdx.x) / kLanes, 0); }

  __device__ static float constant(float value) { return value; }
  __device__ static int64_t widen(int value) { return value; }
  __device__ static float select(bool condition, float a, float b) { return condition ? a : b; }
  __device__ static float larger(float a, float b) { return fmaxf(a, b); }
  __device__ static float exp2(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
  }
  __device__ static float log2(float x) { return __log2f(x); }

  // Over the four lanes that share a row.
  __device__ static float max_of_row(float value) {
    value = fmaxf(value, __shfl_xor_sync(kAll, value, 1));
    return fmaxf(value, __shfl_xor_sync(kAll, value, 2));
  }
  __device__ static float sum_of_row(float value) {
    value += __shfl_xor_sync(kAll, value, 1);
    return value + __shfl_xor_sync(kAll, value, 2);
  }

  // `low` in the lower half.
  template <typename Element>
  __device__ static uint32_t pack(float low, float high) {
    uint32_t word;
    if constexpr (is_bfloat16<Element>()) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
      memcpy(&word, &pair, sizeof word);
    } else {
      const __half2 pair = __floats2half2_rn(low, high);
      memcpy(&word, &pair, sizeof word);
    }
    return word;
  }

  template <typename Element>
  __device__ static void multiply_add(float (&sum)[4], const uint32_t (&left)[4], uint32_t right_low,
                                      uint32_t right_high) {
    if constexpr (is_bfloat16<Element>()) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
          : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
          : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_low), "r"(right_high));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
          : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
          : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_low), "r"(right_high));
    }
  }

  // Four 8 x 8 matrices; lane i says where row i % 8 of matrix i / 8 begins, in elements.
  __device__ void load_matrices(uint32_t (&words)[4], int element) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(elements_ + 2 * element)
                 : "memory");
  }
  __device__ void load_matrices_transposed(uint32_t (&words)[4], int element) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(elements_ + 2 * element)
                 : "memory");
  }

  // 16 bytes from base[offset] where they exist, else zeros; nothing for lanes without a place in the tile.
  template <typename Element>
  __device__ void copy_async(int element, const Element* base, int64_t offset, bool has_place, bool exists) const {
    if (!has_place) return;
    const int num_bytes = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(elements_ + 2 * element),
                 "l"(exists ? base + offset : base), "r"(num_bytes)
                 : "memory");
  }
  __device__ static void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  // All but the last `pending` commits have arrived, for this thread.
  template <int pending>
  __device__ static void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
  }
  __device__ static void sync_block() { __syncthreads(); }

  __device__ static float load_float(const float* base, int index, bool exists, float otherwise) {
    return exists ? base[index] : otherwise;
  }
  __device__ static void store_float(float* base, int index, float value, bool exists) {
    if (exists) base[index] = value;
  }
  __device__ float load_shared(int base, int index) const { return floats_[base + index]; }
  __device__ void store_shared(int base, int index, float value, bool exists) const {
    if (exists) floats_[base + index] = value;
  }
  template <typename Element>
  __device__ static void store_pair(Element* base, int64_t offset, uint32_t word, bool exists) {
    if (exists) *reinterpret_cast<uint32_t*>(base + offset) = word;
  }

 private:
  static constexpr unsigned kAll = 0xffffffffu;
  template <typename Element>
  __device__ static constexpr bool is_bfloat16() {
    return std::is_same_v<Element, c10::BFloat16>;
  }

  uint32_t elements_;
  float* floats_;
};

}  // namespace prefusion::kernels::blockwise
