#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// One point of a diffusion ODE solver's grid; all fp32 scalars. sample = alpha * clean + sigma * noise with
// alpha^2 + sigma^2 = 1, or alpha + sigma = 1 for flow models; lambda = log(alpha / sigma) half the log signal-to-noise
// ratio ("DPM-Solver", arXiv 2206.00927).
struct SolverPoint {
  at::Tensor alpha;
  at::Tensor sigma;
  at::Tensor lambda;
};

// From k-diffusion's sigma (noise over signal), or flow matching's where the config has it; at 0, and at 1 of the
// latter, lambda is infinite.
SolverPoint solver_point(const SchedulerConfig& resolved, const at::Tensor& sigma);

// alpha * clean + sigma * noise.
at::Tensor noisy_sample(const SolverPoint& point, const at::Tensor& clean, const at::Tensor& noise);

// Sigmas with the last one appended, as fp32 [S + 1].
at::Tensor sigma_tensor(std::vector<double> sigmas, double last);

// The timesteps as integers, fractions cut off.
void truncate_timesteps(std::vector<double>& timesteps);

}  // namespace prefusion::schedulers
