#include "training/online/step_pairs.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <array>
#include <utility>

#include "core/interrupt.h"
#include "core/step_clock.h"

namespace prefusion::training {
namespace {

// What a checkpoint holds of a round, by name.
constexpr std::array<std::pair<const char*, at::Tensor StepPairs::*>, 8> kTensors = {{
    {"latents", &StepPairs::latents},
    {"next", &StepPairs::next},
    {"log_probs", &StepPairs::log_probs},
    {"pair_reward", &StepPairs::reward},
    {"items", &StepPairs::items},
    {"times", &StepPairs::times},
    {"next_times", &StepPairs::next_times},
    {"final_reward", &StepPairs::final_reward},
}};

// Collects pairs and joins them.
class PairList {
 public:
  void add(const pipelines::TrajectoryPoint& point, const at::Tensor& reward, int64_t item, int64_t first_item) {
    const at::Tensor of_item = reward[item];
    const at::Tensor chosen = at::stack({of_item.argmax(), of_item.argmin()});
    const at::Tensor on_device = chosen.to(point.candidates.device());
    latents_.push_back(point.latents[item]);
    next_.push_back(point.candidates[item].index_select(0, on_device));
    log_probs_.push_back(point.log_probs[item].index_select(0, on_device));
    reward_.push_back(of_item.index_select(0, chosen));
    items_.push_back(first_item + item);
    times_.push_back(point.step.time);
    next_times_.push_back(point.step.next_time);
  }

  void move_to(StepPairs& pairs) const {
    pairs.items = at::tensor(items_, at::kLong);
    pairs.times = at::tensor(times_, at::kDouble).to(pairs.policy.sampler->time_type());
    pairs.next_times = at::tensor(next_times_, at::kDouble).to(pairs.policy.sampler->time_type());
    if (items_.empty()) return;
    pairs.latents = at::stack(latents_);
    pairs.next = at::stack(next_);
    pairs.log_probs = at::stack(log_probs_);
    pairs.reward = at::stack(reward_);
  }

 private:
  std::vector<at::Tensor> latents_, next_, log_probs_, reward_;
  std::vector<int64_t> items_;
  std::vector<double> times_, next_times_;
};

}  // namespace

pipelines::StepRange StepPairSampler::candidate_steps(const pipelines::SamplingPolicy& policy) const {
  pipelines::StepRange range;
  for (const auto& step : policy.sampler->steps()) {
    if (step.timestep > static_cast<double>(pairs_.max_timestep)) ++range.first;
  }
  return range;
}

at::Tensor StepPairSampler::candidate_rewards(const pipelines::TrajectoryPoint& point,
                                              const pipelines::SamplingPolicy& policy,
                                              std::span<const pipelines::KeyedRequest> requests) {
  const int64_t num_items = point.candidates.size(0), count = point.candidates.size(1);
  at::Tensor clean = point.candidates.flatten(0, 1);
  std::vector<pipelines::KeyedRequest> judged;
  for (const auto& request : requests) judged.insert(judged.end(), static_cast<size_t>(count), request);
  if (!policy.sampler->is_end(point.step.next_time)) {  // else they are clean
    const at::Tensor times = policy.filled(point.step.next_time, clean.size(0), clean.device());
    const at::Tensor rows = at::arange(num_items, clean.options().dtype(at::kLong)).repeat_interleave(count);
    const at::Tensor prediction = policy.predict(*pipeline().components().denoiser, clean, times,
                                                 pipelines::select_rows(point.conditioning, rows));
    clean = policy.sampler->predict_clean(prediction, clean, times);
  }
  return judge(clean, judged).view({num_items, count});
}

StepPairs StepPairSampler::empty_round(int64_t round) {
  const pipelines::TrajectoryOptions options = trajectory_options(round);
  StepPairs pairs{.round = round,
                  .requests = prompts().requests_of(round, trajectories_per_prompt_),
                  .conditioning = {},
                  .policy = policy()};
  pairs.conditioning = pipelines::encode_requests(pipeline(), pairs.requests, options.guidance);
  return pairs;
}

StepPairs StepPairSampler::sample_round(int64_t round) {
  const TimedPart sampling(StepPart::kSampling);
  const at::NoGradGuard no_grad;
  StepPairs pairs = empty_round(round);
  PairList list;
  std::vector<at::Tensor> final_rewards;
  int64_t first_item = 0;
  for (const auto& part : sampled_together(pairs.requests)) {
    pipelines::TrajectoryOptions options = trajectory_options(round);
    options.num_candidates = pairs_.num_candidates;
    options.candidate_steps = candidate_steps(pairs.policy);
    options.on_step = [&](const pipelines::TrajectoryPoint& point) {
      throw_if_interrupted();
      if (point.candidates.size(1) < 2) return true;
      const at::Tensor reward = candidate_rewards(point, pairs.policy, part);
      const at::Tensor gap = reward.amax(1) - reward.amin(1);
      for (int64_t item = 0; item < gap.size(0); ++item) {
        if (gap[item].item<double>() > pairs_.min_gap) list.add(point, reward, item, first_item);
      }
      return true;
    };
    const pipelines::Trajectory trajectory = pipelines::sample_trajectories(pipeline(), part, options);
    final_rewards.push_back(judge(trajectory.latents.select(1, -1), part));
    first_item += static_cast<int64_t>(part.size());
  }
  list.move_to(pairs);
  pairs.final_reward = at::cat(final_rewards);
  return pairs;
}

TensorMap StepPairSampler::tensors(const StepPairs& pairs) {
  TensorMap tensors;
  for (const auto& [name, member] : kTensors) tensors[name] = (pairs.*member).cpu();
  return tensors;
}

StepPairs StepPairSampler::restore(int64_t round, const TensorMap& tensors, const std::string& where) {
  StepPairs pairs = empty_round(round);
  const at::Device device = pairs.conditioning.prompt.encoder_hidden_states.device();
  for (const auto& [name, member] : kTensors) {
    check_round_tensors(tensors, {name}, where);
    pairs.*member = tensors.at(name);
  }
  for (at::Tensor* tensor : {&pairs.latents, &pairs.next, &pairs.log_probs}) *tensor = tensor->to(device);
  return pairs;
}

}  // namespace prefusion::training
