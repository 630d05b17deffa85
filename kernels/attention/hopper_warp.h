#pragma once

#include <cuda.h>

#include "kernels/attention/cuda_warp.h"
#include "kernels/attention/hopper_products.h"
#include "kernels/attention/hopper_shape.h"

namespace prefusion::kernels::hopper {

// A warp of sm_90a: the operations of hopper_tiles.h as the instructions they are made for. What only one lane may do,
// its first does. Included by .cu files only.
class HopperWarp : public blockwise::CudaWarp {
 public:
  using Map = CUtensorMap;

  // `shared` begins a pattern (kPatternBytes); floats and barriers are so many bytes behind.
  __device__ HopperWarp(char* shared, int floats_at, int barriers_at)
      : CudaWarp(shared, floats_at / 2),
        base_(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
        barriers_(base_ + static_cast<uint32_t>(barriers_at)) {}

  // Before anybody uses one; by the whole block.
  __device__ void make_barriers() const {
    if (thread() == 0) {
      for (int i = 0; i < kNumBarriers; ++i) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier(i)), "r"(arrivals_at(i)) : "memory");
      }
      // They are seen by the unit that fetches, too.
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();
  }

  // 128 lanes that fetch with 24 registers each leave 240 for each of the 256 that multiply, of 168 for each of 384.
  __device__ static void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 24;"); }
  __device__ static void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 240;"); }

  __device__ uint32_t address(int byte) const { return base_ + static_cast<uint32_t>(byte); }

  __device__ void expect(int number, int bytes) const {
    __syncwarp();  // all lanes have written
    if (lane() == 0) {
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier(number)), "r"(bytes)
                   : "memory");
    }
  }
  __device__ void arrive(int number) const {
    __syncwarp();  // all lanes have read
    if (lane() == 0) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier(number)) : "memory");
  }
  __device__ void wait(int number, int parity) const {
    uint32_t has_ended = 0;
    while (!has_ended) {
      asm volatile(
          "{\n.reg .pred p;\n"
          "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
          "selp.u32 %0, 1, 0, p;\n}\n"
          : "=r"(has_ended)
          : "r"(barrier(number)), "r"(parity)
          : "memory");
    }
  }

  __device__ void fetch(const Map& map, const BoxPlace& place, int into, int number) const {
    if (lane() == 0) {
      asm volatile(
          "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
          "[%2];" ::"r"(address(into)),
          "l"(reinterpret_cast<uint64_t>(&map)), "r"(barrier(number)), "r"(place.element), "r"(place.row),
          "r"(place.head), "r"(place.batch)
          : "memory");
    }
  }

  // Products are started between these two; sums may be looked at after the second.
  template <typename... Sums>
  __device__ static void begin_products(Sums&... sums) {
    (keep(sums), ...);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  }
  template <typename... Sums>
  __device__ static void finish_products(Sums&... sums) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    (keep(sums), ...);
  }
  template <typename Element, typename Sums, int count, typename Left>
  __device__ static void add_product(Sums (&sums)[count], const Left& left, uint64_t right) {
    GroupProduct<8 * count, Element>::add(sums, left, right);
  }

 private:
  // The compiler moves nothing of them past this. (By numbers: through references they would not stay in registers.)
  template <typename Sums, int count>
  __device__ static void keep(Sums (&sums)[count]) {
    PREFUSION_UNROLL
    for (int i = 0; i < count; ++i) {
      PREFUSION_UNROLL
      for (int j = 0; j < 4; ++j) asm volatile("" : "+f"(sums[i].values[j])::"memory");
    }
  }

  __device__ uint32_t barrier(int number) const { return barriers_ + 8 * static_cast<uint32_t>(number); }

  uint32_t base_, barriers_;
};

}  // namespace prefusion::kernels::hopper
