#include "pipelines/trajectory.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/interrupt.h"
#include "nn/activation_checkpoint.h"
#include "schedulers/ddim_sampler.h"

namespace prefusion::pipelines {
namespace {

using schedulers::GaussianStep;
using schedulers::SamplerStep;

// What a step led to.
struct Candidates {
  at::Tensor latents;    // [N, K, C, h, w] in the dtype of the trajectory
  at::Tensor log_probs;  // [N, K]
  at::Tensor chosen;     // [N]
};

// The log-probability belongs to what is kept: rounding comes before it.
Candidates draw_candidates(const GaussianStep& distribution, int64_t count, int64_t step, at::ScalarType dtype,
                           std::span<const KeyedRequest> requests) {
  const at::Tensor& mean = distribution.mean;
  std::vector<at::Tensor> latents, log_probs;
  for (int64_t k = 0; k < count; ++k) {
    const at::Tensor noise = keyed_noise(requests, candidate_draw(step, k), mean.sizes().slice(1)).to(mean.device());
    latents.push_back(schedulers::draw(distribution, noise).to(dtype));
    log_probs.push_back(schedulers::mean_log_prob(distribution, latents.back()));
  }
  const at::Tensor chosen = keyed_choice(requests, candidate_draw(step, 0), count).to(mean.device());
  return {.latents = at::stack(latents, 1), .log_probs = at::stack(log_probs, 1), .chosen = chosen};
}

Candidates only_candidate(const GaussianStep& distribution, at::ScalarType dtype) {
  const at::Tensor& mean = distribution.mean;
  return {.latents = mean.to(dtype).unsqueeze(1),
          .log_probs = at::zeros({mean.size(0), 1}, mean.options()),
          .chosen = at::zeros({mean.size(0)}, mean.options().dtype(at::kLong))};
}

// [N, ...] of [N, K, ...].
at::Tensor pick(const at::Tensor& candidates, const at::Tensor& chosen) {
  return candidates.flatten(0, 1).index_select(
      0, at::arange(chosen.size(0), chosen.options()) * candidates.size(1) + chosen);
}

// [M], or [M, n] where each row has n draws.
at::Tensor log_probs_of(const GaussianStep& step, const at::Tensor& next) {
  if (next.dim() == step.mean.dim()) return schedulers::mean_log_prob(step, next);
  const int64_t count = next.size(1);
  const GaussianStep repeated{.mean = step.mean.repeat_interleave(count, 0),
                              .std = step.std.repeat_interleave(count, 0)};
  return schedulers::mean_log_prob(repeated, next.flatten(0, 1)).view({-1, count});
}

Transitions slice(const Transitions& all, int64_t begin, int64_t end) {
  return {.latents = all.latents.slice(0, begin, end),
          .next = all.next.slice(0, begin, end),
          .times = all.times.slice(0, begin, end),
          .next_times = all.next_times.slice(0, begin, end),
          .conditioning = select_rows(all.conditioning, at::arange(begin, end, all.times.options().dtype(at::kLong)))};
}

void check_options(const TrajectoryOptions& options) {
  check_usage(options.num_candidates >= 1 && options.num_candidates <= kMaxCandidates,
              "the number of candidates must be between 1 and ", kMaxCandidates, ", found ", options.num_candidates);
}

ImageSize size_of(const TextToImage& pipeline, const TrajectoryOptions& options) {
  return pipeline.image_size({.height_px = options.height_px, .width_px = options.width_px});
}

// The levels of a flow model are those of its own sampler, shift and all.
std::shared_ptr<const schedulers::StochasticSampler> make_sampler(const TextToImage& pipeline,
                                                                  const TrajectoryOptions& options) {
  const PipelineComponents& parts = pipeline.components();
  schedulers::SchedulerConfig config = parts.scheduler_config;
  if (!is_flow(pipeline)) {
    check_input(options.flow_sde == schedulers::FlowSde::kFlowGrpo, config.where,
                ": the steps of this SDE are those of a flow model");
    return std::make_shared<schedulers::DdimSampler>(pipeline.stochastic_ddim(), options.num_inference_steps);
  }
  config.sigmas_linear = parts.family == ModelFamily::kFlux;
  const std::vector<int64_t> latents = pipeline.latent_shape(size_of(pipeline, options));
  const int64_t patch = parts.denoiser->info().size_multiple;
  const int64_t tokens = (latents[1] / patch) * (latents[2] / patch);
  return std::make_shared<schedulers::StochasticFlow>(config, tokens, options.num_inference_steps, options.flow_sde);
}

}  // namespace

at::Tensor SamplingPolicy::predict(unet::Denoiser& denoiser, const at::Tensor& latents, const at::Tensor& times,
                                   const GuidedConditioning& conditioning) const {
  const at::Tensor timesteps = sampler->denoiser_timesteps(times);
  return unet::without_variances(predict_guided(denoiser, latents, timesteps, conditioning, guidance), latents.size(1));
}

GaussianStep SamplingPolicy::step(unet::Denoiser& denoiser, const at::Tensor& latents, const at::Tensor& times,
                                  const at::Tensor& next_times, const GuidedConditioning& conditioning,
                                  double step_noise) const {
  return sampler->step(predict(denoiser, latents, times, conditioning), latents, times, next_times, step_noise);
}

at::Tensor SamplingPolicy::filled(double time, int64_t count, at::Device device) const {
  return at::full({count}, time, at::TensorOptions().dtype(sampler->time_type()).device(device));
}

bool is_flow(const TextToImage& pipeline) {
  return pipeline.components().scheduler_config.use_flow_sigmas;
}

SamplingPolicy make_policy(const TextToImage& pipeline, const TrajectoryOptions& options) {
  SamplingPolicy policy{.sampler = make_sampler(pipeline, options),
                        .guidance = pipeline.asked_twice(options.guidance),
                        .noise = options.noise};
  policy.sampler->check_noise(options.noise);
  return policy;
}

Trajectory sample_trajectories(TextToImage& pipeline, std::span<const KeyedRequest> requests,
                               const TrajectoryOptions& options) {
  const at::NoGradGuard no_grad;
  check_options(options);
  unet::Denoiser& denoiser = *pipeline.components().denoiser;
  const ImageSize size = size_of(pipeline, options);
  Trajectory trajectory{.conditioning = encode_requests(pipeline, requests, options.guidance, size),
                        .policy = make_policy(pipeline, options)};
  const SamplingPolicy& policy = trajectory.policy;
  const at::Tensor& states = trajectory.conditioning.prompt.encoder_hidden_states;
  const at::ScalarType dtype = options.keeps_fp32 ? at::kFloat : states.scalar_type();
  at::Tensor latents = keyed_noise(requests, 0, pipeline.latent_shape(size)).to(states.device(), dtype);

  const std::vector<SamplerStep>& steps = policy.sampler->steps();
  const auto filled = [&](double time) { return policy.filled(time, latents.size(0), latents.device()); };
  const auto count = static_cast<int64_t>(steps.size());
  std::vector<at::Tensor> all_latents = {latents}, all_means, all_log_probs;
  for (int64_t i = 0; i < count; ++i) {
    throw_if_interrupted();
    const SamplerStep& step = steps[static_cast<size_t>(i)];
    const bool is_stochastic = options.noise > 0 && step.has_variance && options.stochastic_steps.contains(i);
    const GaussianStep distribution = policy.step(denoiser, latents, filled(step.time), filled(step.next_time),
                                                  trajectory.conditioning, is_stochastic ? options.noise : 0.0);
    const int64_t num_candidates = options.candidate_steps.contains(i) ? options.num_candidates : 1;
    const Candidates found = is_stochastic ? draw_candidates(distribution, num_candidates, i, dtype, requests)
                                           : only_candidate(distribution, dtype);
    const at::Tensor next = pick(found.latents, found.chosen);
    all_latents.push_back(next);
    if (options.keeps_means) all_means.push_back(distribution.mean);
    all_log_probs.push_back(pick(found.log_probs, found.chosen));
    trajectory.steps.push_back(step);
    trajectory.is_stochastic.push_back(is_stochastic);
    const bool goes_on = !options.on_step || options.on_step({.index = i,
                                                              .count = count,
                                                              .step = step,
                                                              .latents = latents,
                                                              .candidates = found.latents,
                                                              .log_probs = found.log_probs,
                                                              .chosen = found.chosen,
                                                              .conditioning = trajectory.conditioning});
    if (!goes_on) break;
    latents = next;
  }
  trajectory.latents = at::stack(all_latents, 1);
  if (options.keeps_means) trajectory.means = at::stack(all_means, 1);
  trajectory.log_probs = at::stack(all_log_probs, 1);
  return trajectory;
}

Transitions select_transitions(const Trajectory& trajectory, std::span<const TransitionIndex> indices) {
  const int64_t num_items = trajectory.latents.size(0);
  const int64_t num_points = trajectory.latents.size(1);
  std::vector<int64_t> items, rows;
  std::vector<double> times, next_times;
  for (const auto& [item, step] : indices) {
    check_usage(item >= 0 && item < num_items && step >= 0 && step + 1 < num_points, "there is no step ", step,
                " of item ", item, " in a trajectory of ", num_items, " items over ", num_points - 1, " steps");
    check_usage(trajectory.is_stochastic[static_cast<size_t>(step)], "step ", step,
                " of this trajectory is deterministic and has no log-probability");
    items.push_back(item);
    rows.push_back(item * num_points + step);
    times.push_back(trajectory.steps[static_cast<size_t>(step)].time);
    next_times.push_back(trajectory.steps[static_cast<size_t>(step)].next_time);
  }
  const at::Device device = trajectory.latents.device();
  const auto on_device = [&](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong).to(device); };
  const auto as_times = [&](const std::vector<double>& values) {
    return at::tensor(values, at::kDouble).to(device, trajectory.policy.sampler->time_type());
  };
  const at::Tensor flat = trajectory.latents.flatten(0, 1);
  return {.latents = flat.index_select(0, on_device(rows)),
          .next = flat.index_select(0, on_device(rows) + 1),
          .times = as_times(times),
          .next_times = as_times(next_times),
          .conditioning = select_rows(trajectory.conditioning, on_device(items))};
}

ReplayedTransitions replay(unet::Denoiser& denoiser, const SamplingPolicy& policy, const Transitions& transitions) {
  ReplayedTransitions replayed;
  replayed.step = policy.step(denoiser, transitions.latents, transitions.times, transitions.next_times,
                              transitions.conditioning, policy.noise);
  replayed.log_probs = log_probs_of(replayed.step, transitions.next);
  return replayed;
}

ReplayedTransitions replay_in_pieces(unet::Denoiser& denoiser, const SamplingPolicy& policy,
                                     const Transitions& transitions, int64_t rows_at_once) {
  const int64_t count = transitions.latents.size(0);
  check_usage(rows_at_once >= 1, "decisions are replayed at least one at a time, found ", rows_at_once);
  if (rows_at_once >= count) return replay(denoiser, policy, transitions);
  std::vector<at::Tensor> means, deviations, log_probs;
  for (int64_t begin = 0; begin < count; begin += rows_at_once) {
    const Transitions piece = slice(transitions, begin, std::min(count, begin + rows_at_once));
    const auto forward = [&denoiser, policy, piece](const std::vector<at::Tensor>& latents) {
      Transitions same = piece;
      same.latents = latents[0];
      const ReplayedTransitions replayed = replay(denoiser, policy, same);
      return std::vector<at::Tensor>{replayed.step.mean, replayed.step.std, replayed.log_probs};
    };
    const auto found = nn::activation_checkpoint(forward, {piece.latents}, nn::trainable_tensors(denoiser));
    means.push_back(found[0]);
    deviations.push_back(found[1].detach());
    log_probs.push_back(found[2]);
  }
  return {.step = {.mean = at::cat(means), .std = at::cat(deviations)}, .log_probs = at::cat(log_probs)};
}

}  // namespace prefusion::pipelines
