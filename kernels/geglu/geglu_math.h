#pragma once

#include "kernels/geglu/normal_law.h"

// One element of the gated activation, for every device.
namespace prefusion::kernels {

template <typename Real>
PREFUSION_INLINE Real gated_gelu(Real value, Real gate) {
  return value * (gate * normal_law(gate).cdf);
}

template <typename Real>
struct GatedGeluGradient {
  Real value, gate;
};

template <typename Real>
PREFUSION_INLINE GatedGeluGradient<Real> gated_gelu_gradient(Real value, Real gate, Real grad_output) {
  const NormalLaw<Real> law = normal_law(gate);
  return {grad_output * (gate * law.cdf), grad_output * value * (law.cdf + gate * law.density)};
}

}  // namespace prefusion::kernels
