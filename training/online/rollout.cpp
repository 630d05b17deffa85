#include "training/online/rollout.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::training {

std::vector<int64_t> Rollout::decisions() const {
  std::vector<int64_t> steps;
  for (size_t i = 0; i < trajectory.steps.size(); ++i) {
    if (trajectory.is_stochastic[i]) steps.push_back(static_cast<int64_t>(i));
  }
  return steps;
}

std::map<std::string, at::Tensor> reward_metrics(const at::Tensor& reward) {
  return {{"reward", reward.mean().to(at::kDouble)},
          {"reward_std", reward.std(1, /*unbiased=*/false).mean().to(at::kDouble)}};
}

Rollout RolloutSampler::sample_round(int64_t round) {
  const auto requests = prompts().requests_of(round, group_size_);
  pipelines::Trajectory trajectory = sample(requests, trajectory_options(round));
  at::Tensor reward = judge(trajectory.latents.select(1, -1), requests).view({-1, group_size_});
  return {round, prompts().prompts_of(round), std::move(trajectory), std::move(reward)};
}

TensorMap RolloutSampler::tensors(const Rollout& rollout) {
  at::Tensor is_stochastic = at::empty({static_cast<int64_t>(rollout.trajectory.steps.size())}, at::kByte);
  for (int64_t i = 0; i < is_stochastic.size(0); ++i) is_stochastic[i].fill_(rollout.trajectory.is_stochastic[i]);
  TensorMap tensors{{"latents", rollout.trajectory.latents.cpu()},
                    {"log_probs", rollout.trajectory.log_probs.cpu()},
                    {"is_stochastic", is_stochastic},
                    {"reward", rollout.reward}};
  if (rollout.trajectory.means.defined()) tensors["means"] = rollout.trajectory.means.cpu();
  return tensors;
}

Rollout RolloutSampler::restore(int64_t round, const TensorMap& tensors, const std::string& where) {
  check_round_tensors(tensors, {"latents", "log_probs", "is_stochastic", "reward"}, where);
  const pipelines::TrajectoryOptions options = trajectory_options(round);
  if (options.keeps_means) check_round_tensors(tensors, {"means"}, where);
  pipelines::Trajectory trajectory{.latents = tensors.at("latents"),
                                   .means = options.keeps_means ? tensors.at("means") : at::Tensor(),
                                   .log_probs = tensors.at("log_probs"),
                                   .steps = {},
                                   .is_stochastic = {},
                                   .conditioning = pipelines::encode_requests(
                                       pipeline(), prompts().requests_of(round, group_size_), options.guidance),
                                   .policy = policy()};
  trajectory.steps = trajectory.policy.sampler->steps();
  const at::Tensor& is_stochastic = tensors.at("is_stochastic");
  for (int64_t i = 0; i < is_stochastic.size(0); ++i) {
    trajectory.is_stochastic.push_back(is_stochastic[i].item<uint8_t>() != 0);
  }
  const at::Device device = trajectory.conditioning.prompt.encoder_hidden_states.device();
  trajectory.latents = trajectory.latents.to(device);
  if (trajectory.means.defined()) trajectory.means = trajectory.means.to(device);
  trajectory.log_probs = trajectory.log_probs.to(device);
  return {round, prompts().prompts_of(round), std::move(trajectory), tensors.at("reward")};
}

}  // namespace prefusion::training
