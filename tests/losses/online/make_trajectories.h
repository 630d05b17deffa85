#pragma once

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/rng.h"
#include "losses/online/online_objective.h"
#include "losses/registry.h"

namespace prefusion::tests {

inline const losses::OnlineObjective& find_online(std::string_view name) {
  for (const auto& objective : losses::online_objectives()) {
    if (objective.info.name == name) return objective;
  }
  fail_run("no online objective ", name);
}

inline losses::ObjectiveParams online_params(std::string_view name, const std::string& args = "") {
  return losses::resolve_params(find_online(name).info, args, std::nullopt, std::nullopt);
}

// Trajectories with everything any objective asks for, fp64. Log-ratios are of the size `spread`.
inline losses::TrajectoryBatch make_trajectories(int64_t num_prompts, int64_t k, int64_t num_steps, double spread,
                                                 uint64_t seed = 1) {
  const auto normal = [&](at::IntArrayRef shape, uint64_t item) {
    return philox_randn(shape, {.seed = seed, .item = item}, RandomPurpose::kOther).to(at::kDouble);
  };
  const std::vector<int64_t> steps = {num_prompts, k, num_steps};
  losses::TrajectoryBatch batch;
  batch.log_prob_old = -1 + 0.1 * normal(steps, 0);
  batch.log_prob = batch.log_prob_old + spread * normal(steps, 1);
  batch.log_prob_ref = batch.log_prob_old + spread * normal(steps, 2);
  batch.advantage = normal({num_prompts, k}, 3);
  batch.reward = 20 + normal({num_prompts, k}, 4);
  batch.kl = spread * normal(steps, 5).square();
  batch.kl_old = spread * normal(steps, 6).square();
  batch.step_std = 0.2 + 0.1 * normal({num_steps}, 7).abs();
  batch.step_size = 0.05 + 0.02 * normal({num_steps}, 8).abs();
  return batch;
}

inline at::Tensor prompt_losses(std::string_view name, const losses::TrajectoryBatch& batch,
                                const std::string& args = "") {
  return std::get<losses::TrajectoryLoss>(find_online(name).group_loss)(batch, online_params(name, args));
}

inline double online_loss(std::string_view name, const losses::TrajectoryBatch& batch, const std::string& args = "") {
  return losses::trajectory_loss(find_online(name), batch, online_params(name, args)).item<double>();
}

}  // namespace prefusion::tests
