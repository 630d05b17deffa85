#pragma once

#include <cstdint>

#include "kernels/inlining.h"
#include "kernels/packet.h"

// The numbers of a guided step, and a packet of them, for all versions and for the test that runs packets on the host.
namespace prefusion::kernels {

template <typename Real>
struct GuidedNumbers {
  Real scale, keep, move;

  PREFUSION_INLINE Real guided(Real negative, Real positive) const { return negative + scale * (positive - negative); }
  PREFUSION_INLINE Real next(Real sample, Real prediction) const { return keep * sample + move * prediction; }
};

// Pointers are to whole tensors, `count` is the number of elements of a half.
template <typename T, typename Real>
struct GuidedStepPackets {
  const T* both;
  const T* sample;
  T* guided;
  T* next;
  int64_t count;
  GuidedNumbers<Real> numbers;

  template <int kSize>
  PREFUSION_HOST_DEVICE void compute(int64_t packet) const {
    const int64_t first = packet * kSize;
    const auto negative = load_packet<kSize>(both + first), positive = load_packet<kSize>(both + count + first);
    const auto before = load_packet<kSize>(sample + first);
    Packet<T, kSize> prediction, after;
    PREFUSION_UNROLL
    for (int i = 0; i < kSize; ++i) {
      const Real along = numbers.guided(static_cast<Real>(negative.values[i]), static_cast<Real>(positive.values[i]));
      prediction.values[i] = static_cast<T>(along);
      after.values[i] = static_cast<T>(numbers.next(static_cast<Real>(before.values[i]), along));
    }
    store_packet(guided + first, prediction);
    store_packet(next + first, after);
  }
};

}  // namespace prefusion::kernels
