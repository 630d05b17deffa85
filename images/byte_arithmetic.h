#pragma once

// Pillow's integer arithmetic on shares of 255, which its conversions round by.
namespace prefusion::images {

// a * b / 255, rounded to nearest, for a and b in 0 .. 255.
inline int times_over_255(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

}  // namespace prefusion::images
