#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/inlining.h"

// The exponential of numbers that are not positive, which activations are made of. Without branches, so that a loop
// over it becomes vector instructions; for host and device.
namespace prefusion::kernels {

// e^x for x <= 0, to a rounding or two; zero from where the result would lose digits (-87). Not a number stays that.
PREFUSION_INLINE float exp_of_negative(float x) {
#ifdef __CUDA_ARCH__
  return expf(x);
#else
  constexpr float kSmallest = -87.0f;
  constexpr float kLog2E = 1.44269504f;
  // ln 2 in two parts: the first has few digits, its product with a whole number is exact.
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  // Adding it leaves a whole number in the low bits.
  constexpr float kRounder = 12582912.0f;
  const float bounded = x < kSmallest ? kSmallest : x;
  const float shifted = bounded * kLog2E + kRounder;
  const float whole = shifted - kRounder;
  const float rest = (bounded - whole * kLn2High) - whole * kLn2Low;
  // Taylor: |rest| <= ln(2) / 2, the seventh power's share is below a tenth of a rounding.
  float sum = 1.0f / 720.0f;
  sum = sum * rest + 1.0f / 120.0f;
  sum = sum * rest + 1.0f / 24.0f;
  sum = sum * rest + 1.0f / 6.0f;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.0f;
  sum = sum * rest + 1.0f;
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + (127u << 23);
  float power;
  memcpy(&power, &bits, sizeof power);
  return x < kSmallest ? 0.0f : sum * power;
#endif
}

PREFUSION_INLINE double exp_of_negative(double x) {
  return exp(x);
}

}  // namespace prefusion::kernels
