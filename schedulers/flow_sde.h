#pragma once

#include <ATen/core/Tensor.h>

#include "schedulers/gaussian_step.h"

namespace prefusion::schedulers {

// A step of a stochastic differential equation with the marginals of the flow ODE dx = v dt. Noise levels are those of
// flow matching: x_t = (1 - t) x_0 + t noise, so that t = 1 is pure noise and v = noise - x_0.
struct FlowSdeStep {
  GaussianStep step;     // x_prev; its std is diffusion * sqrt(-dt)
  at::Tensor diffusion;  // [N] sigma_t, the coefficient of the Wiener process
};

// Flow-GRPO (arXiv 2505.05470), with dt = t_prev - t < 0 and a = noise_level:
//   sigma_t = a sqrt(t / (1 - t))
//   mean    = x (1 + sigma_t^2 / (2 t) dt) + v (1 + sigma_t^2 (1 - t) / (2 t)) dt
// At t = 1, where sigma_t would be infinite, the grid value that follows 1 (`after_one` < 1) takes the place of t in
// 1 - t. a = 0 is Euler's step of the ODE. The paper's a is 0.7.
//
// The KL of a step to a reference that an exact Gaussian has is mean_kl(mean, mean_ref, step.std). The public code
// divides by 2 sigma_t^2 and leaves out -dt: mean_kl(mean, mean_ref, diffusion), which its published coefficients
// (0.04, 0.01) are for.
//
//   velocity, sample    [N, ...], any float dtype; arithmetic in fp32 (fp64 for fp64 velocities)
//   times, next_times   [N] on their device, 0 <= next < t <= 1
FlowSdeStep flow_grpo_step(const at::Tensor& velocity, const at::Tensor& sample, const at::Tensor& times,
                           const at::Tensor& next_times, double noise_level, double after_one);

// DanceGRPO (arXiv 2505.07818): constant diffusion eta, and the drift that keeps the marginals,
//   mean = x + v dt - eta^2 / 2 score dt,   score = -(x - (1 - t) x0_hat) / t^2,   x0_hat = x - t v
FlowSdeStep dance_grpo_step(const at::Tensor& velocity, const at::Tensor& sample, const at::Tensor& times,
                            const at::Tensor& next_times, double eta);

}  // namespace prefusion::schedulers
