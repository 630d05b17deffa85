#pragma once

#include <cstdint>

#include "kernels/inlining.h"

// One element of a moment in bytes, for every device.
namespace prefusion::kernels::detail {

// How many of the 255 sorted middles are below x: the code of the nearest entry of the table. Without branches.
PREFUSION_INLINE int nearest_code(const float* middles, float x) {
  int code = 0;
  PREFUSION_UNROLL
  for (int step = 128; step > 0; step /= 2) code += middles[code + step - 1] < x ? step : 0;
  return code;
}

// A block of zeros has no scale: 0 / 1.
PREFUSION_INLINE float divisor_of(float scale) {
  return scale > 0 || scale != scale ? scale : 1;
}

PREFUSION_INLINE uint8_t signed_code(const float* middles, float value, float divisor) {
  return static_cast<uint8_t>(nearest_code(middles, value / divisor));
}

// Of a moment without a sign: what is positive never becomes 0.
PREFUSION_INLINE uint8_t positive_code(const float* middles, float value, float divisor) {
  const float scaled = value / divisor;
  const int code = nearest_code(middles, scaled), least = scaled > 0 ? 1 : 0;
  return static_cast<uint8_t>(code > least ? code : least);
}

// The larger of a maximum and an absolute value; what is not a number stays so.
PREFUSION_INLINE float larger(float maximum, float value) {
  const float magnitude = value < 0 ? -value : value;
  return maximum >= magnitude || maximum != maximum ? maximum : magnitude;
}

}  // namespace prefusion::kernels::detail
