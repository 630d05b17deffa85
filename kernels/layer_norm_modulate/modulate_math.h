#pragma once

#include "kernels/inlining.h"

// One element of the modulated layer norm, for every device. T is the tensors' dtype, Real what is computed in.
//
// What the composition of layer norm and modulation stores on its way is rounded to T here too: models of bf16 and fp16
// then give the numbers of their public code, not merely ones as exact.
namespace prefusion::kernels {

template <typename Real, typename T>
PREFUSION_INLINE Real scale_factor(T scale) {
  return static_cast<Real>(static_cast<T>(1 + static_cast<Real>(scale)));
}

template <typename Real, typename T>
PREFUSION_INLINE Real modulated(Real normed, T scale, T shift) {
  return static_cast<Real>(static_cast<T>(normed)) * scale_factor<Real>(scale) + static_cast<Real>(shift);
}

}  // namespace prefusion::kernels
