#include "training/online/rollout.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/rng.h"
#include "core/weights.h"
#include "data/prompt_list.h"
#include "training/policy_pipeline.h"

namespace prefusion::training {
namespace {

// Trajectories sampled side by side; how many does not change what they are.
constexpr int64_t kSampledAtOnce = 16;

pipelines::Trajectory joined(std::vector<pipelines::Trajectory> parts) {
  pipelines::Trajectory whole = std::move(parts.front());
  std::vector<at::Tensor> latents{whole.latents}, log_probs{whole.log_probs};
  for (size_t i = 1; i < parts.size(); ++i) {
    latents.push_back(parts[i].latents);
    log_probs.push_back(parts[i].log_probs);
  }
  whole.latents = at::cat(latents);
  whole.log_probs = at::cat(log_probs);
  return whole;
}

}  // namespace

std::vector<int64_t> Rollout::decisions() const {
  std::vector<int64_t> steps;
  for (size_t i = 0; i < trajectory.steps.size(); ++i) {
    if (trajectory.is_stochastic[i]) steps.push_back(static_cast<int64_t>(i));
  }
  return steps;
}

RolloutSampler::RolloutSampler(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                               at::ScalarType dtype, at::Device device)
    : options_(options),
      pipeline_(policy_pipeline(options, std::move(denoiser), dtype, device)),
      judge_(make_judge(options.online.reward, /*margin=*/0.0)) {
  for (const auto& entry : data::read_prompts(options.online.prompts)) {
    judge_->check_prompt(entry.prompt);
    prompts_.push_back(entry.prompt);
  }
}

std::vector<std::string> RolloutSampler::prompts_of(int64_t round) const {
  std::vector<std::string> chosen;
  std::vector<int64_t> order;
  int64_t ordered_pass = -1;
  for (int64_t i = 0; i < options_.online.prompts_per_round; ++i) {
    const int64_t position = round * options_.online.prompts_per_round + i;
    const int64_t pass = position / num_prompts();
    if (pass != ordered_pass) {
      order =
          random_permutation(num_prompts(), {options_.seed, static_cast<uint64_t>(pass), 0}, RandomPurpose::kShuffle);
      ordered_pass = pass;
    }
    chosen.push_back(prompts_[order[position % num_prompts()]]);
  }
  return chosen;
}

std::vector<pipelines::KeyedRequest> RolloutSampler::requests_of(int64_t round,
                                                                 const std::vector<std::string>& prompts) const {
  std::vector<pipelines::KeyedRequest> requests;
  for (const auto& prompt : prompts) {
    for (int64_t k = 0; k < options_.online.group_size; ++k) {
      const auto item = static_cast<uint64_t>(requests.size());
      requests.push_back({prompt, "", {options_.seed, item, static_cast<uint64_t>(round)}});
    }
  }
  return requests;
}

pipelines::TrajectoryOptions RolloutSampler::trajectory_options(int64_t round) const {
  const OnlineOptions& online = options_.online;
  pipelines::TrajectoryOptions trajectory;
  trajectory.num_inference_steps = online.sampling_steps;
  trajectory.eta = online.eta;
  trajectory.guidance.scale = online.guidance;
  if (online.window > 0) {
    const int64_t positions = std::max<int64_t>(1, online.sampling_steps - online.window + 1);
    trajectory.stochastic_steps = {.first = round % positions, .count = online.window};
  }
  return trajectory;
}

Rollout RolloutSampler::sample(int64_t round) {
  at::NoGradGuard no_grad;
  std::vector<std::string> prompts = prompts_of(round);
  const auto requests = requests_of(round, prompts);
  const pipelines::TrajectoryOptions options = trajectory_options(round);
  const std::span<const pipelines::KeyedRequest> all(requests);
  std::vector<pipelines::Trajectory> parts;
  for (size_t begin = 0; begin < all.size(); begin += kSampledAtOnce) {
    throw_if_interrupted();
    const size_t count = std::min<size_t>(kSampledAtOnce, all.size() - begin);
    parts.push_back(pipelines::sample_trajectories(pipeline_, all.subspan(begin, count), options));
  }
  pipelines::Trajectory trajectory = joined(std::move(parts));
  trajectory.conditioning = pipelines::encode_requests(pipeline_, requests, options.guidance);
  at::Tensor reward = judge(trajectory.latents.select(1, -1), prompts);
  return {round, std::move(prompts), std::move(trajectory), std::move(reward)};
}

at::Tensor RolloutSampler::judge(const at::Tensor& latents, const std::vector<std::string>& prompts) {
  const int64_t k = options_.online.group_size;
  std::vector<float> rewards;
  for (int64_t i = 0; i < latents.size(0); ++i) {
    const at::Tensor image = pipeline_.decode(latents.slice(0, i, i + 1))[0];
    rewards.push_back(static_cast<float>(judge_->reward(judge_->score(image, prompts[i / k]))));
  }
  return at::tensor(rewards, at::kFloat).view({-1, k});
}

TensorMap RolloutSampler::tensors(const Rollout& rollout) {
  at::Tensor is_stochastic = at::empty({static_cast<int64_t>(rollout.trajectory.steps.size())}, at::kByte);
  for (int64_t i = 0; i < is_stochastic.size(0); ++i) is_stochastic[i].fill_(rollout.trajectory.is_stochastic[i]);
  return {{"latents", rollout.trajectory.latents.cpu()},
          {"log_probs", rollout.trajectory.log_probs.cpu()},
          {"is_stochastic", is_stochastic},
          {"reward", rollout.reward}};
}

Rollout RolloutSampler::restore(int64_t round, const TensorMap& tensors, const std::string& where) {
  for (const char* name : {"latents", "log_probs", "is_stochastic", "reward"}) {
    check_input(tensors.contains(name), where, ": holds no '", name, "' of the round it was saved in");
  }
  std::vector<std::string> prompts = prompts_of(round);
  const pipelines::TrajectoryOptions options = trajectory_options(round);
  pipelines::Trajectory trajectory{
      .latents = tensors.at("latents"),
      .log_probs = tensors.at("log_probs"),
      .steps = {},
      .is_stochastic = {},
      .conditioning = pipelines::encode_requests(pipeline_, requests_of(round, prompts), options.guidance),
      .policy = {.sampler = pipeline_.stochastic_ddim(), .guidance = options.guidance, .eta = options.eta}};
  trajectory.steps = trajectory.policy.sampler.steps(options.num_inference_steps);
  const at::Tensor& is_stochastic = tensors.at("is_stochastic");
  for (int64_t i = 0; i < is_stochastic.size(0); ++i) {
    trajectory.is_stochastic.push_back(is_stochastic[i].item<uint8_t>() != 0);
  }
  const at::Device device = trajectory.conditioning.prompt.encoder_hidden_states.device();
  trajectory.latents = trajectory.latents.to(device);
  trajectory.log_probs = trajectory.log_probs.to(device);
  return {round, std::move(prompts), std::move(trajectory), tensors.at("reward")};
}

}  // namespace prefusion::training
