#include "schedulers/solver_point.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace prefusion::schedulers {

SolverPoint solver_point(const SchedulerConfig& resolved, const at::Tensor& sigma) {
  const at::Tensor alpha = resolved.use_flow_sigmas ? 1 - sigma : 1 / (sigma.square() + 1).sqrt();
  const at::Tensor deviation = resolved.use_flow_sigmas ? sigma : sigma * alpha;
  return {alpha, deviation, alpha.log() - deviation.log()};
}

at::Tensor noisy_sample(const SolverPoint& point, const at::Tensor& clean, const at::Tensor& noise) {
  return point.alpha * clean + point.sigma * noise;
}

at::Tensor sigma_tensor(std::vector<double> sigmas, double last) {
  sigmas.push_back(last);
  at::Tensor out = at::empty({static_cast<int64_t>(sigmas.size())}, at::kFloat);
  std::transform(sigmas.begin(), sigmas.end(), out.data_ptr<float>(), [](double v) { return static_cast<float>(v); });
  return out;
}

void truncate_timesteps(std::vector<double>& timesteps) {
  for (double& timestep : timesteps) timestep = std::trunc(timestep);
}

}  // namespace prefusion::schedulers
