#pragma once

#include <cmath>

#include "core/philox.h"
#include "kernels/adamw/adamw.h"

namespace prefusion::kernels::detail {

// Plain functions for host and device, so that tests on the CPU run what the GPU runs.

// What is the same for all elements of all parameters.
struct AdamWConstants {
  float share1, beta2, share2, eps;  // shares: 1 - beta, of the new gradient
  float kept;                        // 1 - lr * weight_decay
  float lr, log_beta1, log_beta2;
};

inline AdamWConstants adamw_constants(const AdamWSettings& s) {
  return {.share1 = static_cast<float>(1 - s.beta1),
          .beta2 = static_cast<float>(s.beta2),
          .share2 = static_cast<float>(1 - s.beta2),
          .eps = static_cast<float>(s.eps),
          .kept = static_cast<float>(1 - s.lr * s.weight_decay),
          .lr = static_cast<float>(s.lr),
          .log_beta1 = static_cast<float>(std::log(s.beta1)),
          .log_beta2 = static_cast<float>(std::log(s.beta2))};
}

// What is the same for all elements of a parameter.
struct AdamWFactors {
  AdamWConstants constants;
  float gradient_factor;
  float step_size;     // lr / (1 - beta1^t)
  float inverse_root;  // 1 / sqrt(1 - beta2^t)
};

// 1 - beta^t by its logarithm: in fp32 the power's rounding would be all of a small difference.
PREFUSION_HOST_DEVICE inline AdamWFactors adamw_factors(const AdamWConstants& constants, float gradient_factor,
                                                        float count) {
  return {constants, gradient_factor, constants.lr / -expm1f(count * constants.log_beta1),
          1.0F / sqrtf(-expm1f(count * constants.log_beta2))};
}

// Moves one element; returns its new weight.
PREFUSION_HOST_DEVICE inline float adamw_element(float weight, float gradient, float& exp_avg, float& exp_avg_sq,
                                                 const AdamWFactors& f) {
  const AdamWConstants& c = f.constants;
  gradient *= f.gradient_factor;
  exp_avg += (gradient - exp_avg) * c.share1;
  exp_avg_sq = c.beta2 * exp_avg_sq + c.share2 * gradient * gradient;
  return weight * c.kept - f.step_size * exp_avg / (sqrtf(exp_avg_sq) * f.inverse_root + c.eps);
}

}  // namespace prefusion::kernels::detail
