#include "training/online/policy_sampler.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/step_clock.h"
#include "training/online/online_options.h"
#include "training/policy_pipeline.h"

namespace prefusion::training {
namespace {

pipelines::Trajectory joined(std::vector<pipelines::Trajectory> parts) {
  pipelines::Trajectory whole = std::move(parts.front());
  for (at::Tensor pipelines::Trajectory::*part :
       {&pipelines::Trajectory::latents, &pipelines::Trajectory::means, &pipelines::Trajectory::log_probs}) {
    if (!(whole.*part).defined()) continue;
    std::vector<at::Tensor> tensors{whole.*part};
    for (size_t i = 1; i < parts.size(); ++i) tensors.push_back(parts[i].*part);
    whole.*part = at::cat(tensors);
  }
  return whole;
}

}  // namespace

PolicySampler::PolicySampler(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                             at::ScalarType dtype, at::Device device)
    : options_(options),
      objective_(*online_objective_of(options)),
      prompts_(options.online.prompts, options.online.prompts_per_round, options.seed),
      pipeline_(training_pipeline(options, std::move(denoiser), dtype, device)),
      judge_(make_judge({.rewards = {options.online.reward}, .margin = 0.0, .dtype = dtype, .device = device})) {
  for (const auto& prompt : prompts_.all()) judge_->check_prompt(prompt);
  const pipelines::SamplingPolicy every_round = policy();
  for (const auto& step : every_round.sampler->steps()) num_random_steps_ += step.has_variance;
}

pipelines::TrajectoryOptions PolicySampler::trajectory_options(int64_t round) const {
  const OnlineOptions& online = options_.online;
  pipelines::TrajectoryOptions trajectory;
  trajectory.num_inference_steps = online.sampling_steps;
  trajectory.noise = sampling_noise(options_, objective_, pipelines::is_flow(pipeline_));
  if (objective_.has_constant_noise) trajectory.flow_sde = schedulers::FlowSde::kDanceGrpo;
  trajectory.keeps_means =
      std::ranges::find(objective_.needs, losses::TrajectoryInput::kKlOld) != objective_.needs.end();
  trajectory.guidance.scale = online.guidance;
  if (online.window > 0) {
    const int64_t positions = std::max<int64_t>(1, num_random_steps_ - online.window + 1);
    trajectory.stochastic_steps = {.first = round % positions, .count = online.window};
  }
  return trajectory;
}

pipelines::Trajectory PolicySampler::sample(std::span<const pipelines::KeyedRequest> requests,
                                            const pipelines::TrajectoryOptions& options) {
  const TimedPart sampling(StepPart::kSampling);
  const at::NoGradGuard no_grad;
  std::vector<pipelines::Trajectory> parts;
  for (const auto& part : sampled_together(requests)) {
    throw_if_interrupted();
    parts.push_back(pipelines::sample_trajectories(pipeline_, part, options));
  }
  pipelines::Trajectory trajectory = joined(std::move(parts));
  trajectory.conditioning = pipelines::encode_requests(pipeline_, requests, options.guidance);
  return trajectory;
}

std::vector<std::span<const pipelines::KeyedRequest>> PolicySampler::sampled_together(
    std::span<const pipelines::KeyedRequest> requests) {
  constexpr size_t kAtOnce = 16;
  std::vector<std::span<const pipelines::KeyedRequest>> parts;
  for (size_t begin = 0; begin < requests.size(); begin += kAtOnce) {
    parts.push_back(requests.subspan(begin, std::min(kAtOnce, requests.size() - begin)));
  }
  return parts;
}

at::Tensor PolicySampler::judge(const at::Tensor& latents, std::span<const pipelines::KeyedRequest> requests) {
  const TimedPart reward(StepPart::kReward);
  std::vector<float> rewards;
  for (int64_t i = 0; i < latents.size(0); ++i) {
    const at::Tensor image = pipeline_.decode(latents.slice(0, i, i + 1))[0];
    const std::string& prompt = requests[static_cast<size_t>(i)].prompt;
    rewards.push_back(static_cast<float>(judge_->reward(judge_->score(image, prompt))));
  }
  return at::tensor(rewards, at::kFloat);
}

void check_round_tensors(const TensorMap& tensors, std::initializer_list<const char*> names, const std::string& where) {
  for (const char* name : names) {
    check_input(tensors.contains(name), where, ": holds no '", name, "' of the round it was saved in");
  }
}

}  // namespace prefusion::training
