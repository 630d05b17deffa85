#pragma once

#include "kernels/inlining.h"

// Two neighbouring channels of a head, for every device. T is the tensors' dtype, Real what is computed in.
namespace prefusion::kernels {

template <typename Real>
struct Pair {
  Real first, second;
};

// By the angle of the cosine and sine.
template <typename Real>
PREFUSION_INLINE Pair<Real> turned(Pair<Real> pair, Real cosine, Real sine) {
  return {pair.first * cosine - pair.second * sine, pair.second * cosine + pair.first * sine};
}

// The norm of a value, as T would hold it.
template <typename T, typename Real>
PREFUSION_INLINE Real rms_normed(T value, Real rstd, Real weight) {
  return static_cast<Real>(static_cast<T>(static_cast<Real>(value) * rstd * weight));
}

}  // namespace prefusion::kernels
