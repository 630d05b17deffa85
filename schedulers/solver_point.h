#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace prefusion::schedulers {

// One point of a diffusion ODE solver's grid; all fp32 scalars. sample = alpha * clean + sigma * noise with
// alpha^2 + sigma^2 = 1, lambda = log(alpha / sigma) half the log signal-to-noise ratio ("DPM-Solver", arXiv
// 2206.00927).
struct SolverPoint {
  at::Tensor alpha;
  at::Tensor sigma;
  at::Tensor lambda;
};

// From k-diffusion's sigma (noise over signal); at 0 lambda is infinite.
SolverPoint solver_point(const at::Tensor& sigma);

// Sigmas with the last one appended, as fp32 [S + 1].
at::Tensor sigma_tensor(std::vector<double> sigmas, double last);

// The timesteps as integers, fractions cut off.
void truncate_timesteps(std::vector<double>& timesteps);

}  // namespace prefusion::schedulers
