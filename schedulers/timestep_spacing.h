#pragma once

#include <cstdint>
#include <vector>

#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// Which timesteps a sampler visits ("Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891,
// table 2), in descending order. Arithmetic follows numpy's linspace, arange and round, in double.

// num_inference_steps timesteps, rounded to whole numbers unless `fractional` (linspace of the k-diffusion samplers).
std::vector<double> spaced_timesteps(const SchedulerConfig& resolved, int64_t num_inference_steps, bool fractional);

// The spacing of multistep solvers: one more point than steps, the last left out; `last_timestep` caps the range.
std::vector<double> solver_timesteps(const SchedulerConfig& resolved, int64_t num_inference_steps,
                                     int64_t last_timestep);

// numpy.linspace(first, last, count).
std::vector<double> linspace(double first, double last, int64_t count);

// Usage error unless 1 <= num_inference_steps <= T.
void check_num_inference_steps(const SchedulerConfig& resolved, int64_t num_inference_steps);

// Usage error unless every timestep is within [0, T).
void check_timesteps(const SchedulerConfig& resolved, const std::vector<double>& timesteps);

}  // namespace prefusion::schedulers
