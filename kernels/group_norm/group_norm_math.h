#pragma once

#include "kernels/exponential.h"
#include "kernels/inlining.h"

// One element of the group norm, for every device. T is the tensors' dtype, Real what is computed in.
//
// What the composition of addition, norm and SiLU stores on its way is rounded to T here too: models of bf16 and fp16
// then give the numbers of their public code, not merely ones as exact.
namespace prefusion::kernels {

template <typename Real>
struct Sigmoid {
  Real value, rest;  // of x, and 1 less that: both to full relative accuracy
};

template <typename Real>
PREFUSION_INLINE Sigmoid<Real> sigmoid(Real x) {
  const Real small = exp_of_negative(x < 0 ? x : -x);
  const Real upper = 1 / (1 + small), lower = small * upper;
  return {x < 0 ? lower : upper, x < 0 ? upper : lower};  // numbers chosen, not structs: vectors have no branches
}

template <typename Real, typename T>
PREFUSION_INLINE Real shifted(T input, T shift) {
  return static_cast<Real>(static_cast<T>(static_cast<Real>(input) + static_cast<Real>(shift)));
}

// What a channel of an item is normalised by.
template <typename Real>
struct ChannelNorm {
  Real mean, rstd, weight, bias;

  PREFUSION_INLINE Real normalised(Real value) const { return (value - mean) * rstd; }
};

// The norm of a shifted value, as T would hold it.
template <typename T, typename Real>
PREFUSION_INLINE Real norm_of(const ChannelNorm<Real>& channel, Real value) {
  return static_cast<Real>(static_cast<T>(channel.normalised(value) * channel.weight + channel.bias));
}

template <typename Real>
PREFUSION_INLINE Real silu_of(Real x) {
  return x * sigmoid(x).value;
}

// The gradient before SiLU of one behind it.
template <typename Real>
PREFUSION_INLINE Real before_silu(Real x, Real grad) {
  const Sigmoid<Real> s = sigmoid(x);
  return grad * s.value * (1 + x * s.rest);
}

}  // namespace prefusion::kernels
