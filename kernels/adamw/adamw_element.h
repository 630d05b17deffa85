#pragma once

#include <cmath>

#include "core/philox.h"

namespace prefusion::kernels::detail {

// Plain functions for host and device, so that tests on the CPU run what the GPU runs.

// What is the same for all elements of a step.
struct AdamWFactors {
  float share1, beta2, share2, eps;  // shares: 1 - beta, of the new gradient
  float kept;                        // 1 - lr * weight_decay
  float step_size;                   // lr / (1 - beta1^t)
  float inverse_root;                // 1 / sqrt(1 - beta2^t)
};

PREFUSION_HOST_DEVICE inline AdamWFactors adamw_factors(double lr, double beta1, double beta2, double eps,
                                                        double weight_decay, double count) {
  return {.share1 = static_cast<float>(1 - beta1),
          .beta2 = static_cast<float>(beta2),
          .share2 = static_cast<float>(1 - beta2),
          .eps = static_cast<float>(eps),
          .kept = static_cast<float>(1 - lr * weight_decay),
          .step_size = static_cast<float>(lr / (1 - std::pow(beta1, count))),
          .inverse_root = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, count)))};
}

// Moves one element; returns its new weight.
PREFUSION_HOST_DEVICE inline float adamw_element(float weight, float gradient, float& exp_avg, float& exp_avg_sq,
                                                 const AdamWFactors& f) {
  exp_avg += (gradient - exp_avg) * f.share1;
  exp_avg_sq = f.beta2 * exp_avg_sq + f.share2 * gradient * gradient;
  return weight * f.kept - f.step_size * exp_avg / (sqrtf(exp_avg_sq) * f.inverse_root + f.eps);
}

}  // namespace prefusion::kernels::detail
