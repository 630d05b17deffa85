#pragma once

#include <cstdint>

#include "kernels/inlining.h"

// What CPU versions of several operations do with rows.
namespace prefusion::kernels::detail {

// Sums on the CPU are kept in so many numbers that take turns, and become vector instructions without changing their
// order.
constexpr int kTurns = 32;

template <typename Real>
struct Turns {
  Real values[kTurns] = {};

  // The same tree for every row.
  PREFUSION_INLINE Real total() {
    for (int half = kTurns / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) values[i] += values[i + half];
    }
    return values[0];
  }
};

template <typename T, typename Real>
PREFUSION_INLINE void widen(const T* __restrict__ from, Real* __restrict__ to, int64_t width) {
  for (int64_t j = 0; j < width; ++j) to[j] = static_cast<Real>(from[j]);
}

}  // namespace prefusion::kernels::detail
