#include "pipelines/trajectory.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/interrupt.h"
#include "nn/activation_checkpoint.h"

namespace prefusion::pipelines {
namespace {

using schedulers::DdimStep;
using schedulers::GaussianStep;

at::Tensor filled(int64_t timestep, const at::Tensor& latents) {
  return at::full({latents.size(0)}, timestep, latents.options().dtype(at::kLong));
}

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
          .chosen = filled(0, mean)};
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
          .timesteps = all.timesteps.slice(0, begin, end),
          .previous_timesteps = all.previous_timesteps.slice(0, begin, end),
          .conditioning = select_rows(all.conditioning, at::arange(begin, end, all.timesteps.options()))};
}

void check_options(const TrajectoryOptions& options) {
  check_usage(options.eta >= 0 && options.eta <= 1, "eta of a trajectory must be between 0 and 1, found ", options.eta);
  check_usage(options.num_candidates >= 1 && options.num_candidates <= kMaxCandidates,
              "the number of candidates must be between 1 and ", kMaxCandidates, ", found ", options.num_candidates);
}

}  // namespace

GaussianStep DdimPolicy::step(unet::Denoiser& denoiser, const at::Tensor& latents, const at::Tensor& timesteps,
                              const at::Tensor& previous_timesteps, const GuidedConditioning& conditioning,
                              double eta) const {
  const at::Tensor prediction = predict_guided(denoiser, latents, timesteps, conditioning, guidance);
  return sampler.step(prediction, latents, timesteps, previous_timesteps, eta);
}

Trajectory sample_trajectories(TextToImage& pipeline, std::span<const KeyedRequest> requests,
                               const TrajectoryOptions& options) {
  const at::NoGradGuard no_grad;
  check_options(options);
  unet::Denoiser& denoiser = *pipeline.components().denoiser;
  const ImageSize size = pipeline.image_size({.height_px = options.height_px, .width_px = options.width_px});
  Trajectory trajectory{
      .conditioning = encode_requests(pipeline, requests, options.guidance, size),
      .policy = {.sampler = pipeline.stochastic_ddim(), .guidance = options.guidance, .eta = options.eta}};
  const DdimPolicy& policy = trajectory.policy;
  const at::Tensor& states = trajectory.conditioning.prompt.encoder_hidden_states;
  const at::ScalarType dtype = options.keeps_fp32 ? at::kFloat : states.scalar_type();
  at::Tensor latents = keyed_noise(requests, 0, pipeline.latent_shape(size)).to(states.device(), dtype);

  const std::vector<DdimStep> steps = policy.sampler.steps(options.num_inference_steps);
  const auto count = static_cast<int64_t>(steps.size());
  std::vector<at::Tensor> all_latents = {latents}, all_log_probs;
  for (int64_t i = 0; i < count; ++i) {
    throw_if_interrupted();
    const DdimStep& step = steps[static_cast<size_t>(i)];
    const bool is_stochastic = options.eta > 0 && step.has_variance && options.stochastic_steps.contains(i);
    const GaussianStep distribution =
        policy.step(denoiser, latents, filled(step.timestep, latents), filled(step.previous_timestep, latents),
                    trajectory.conditioning, is_stochastic ? options.eta : 0.0);
    const int64_t num_candidates = options.candidate_steps.contains(i) ? options.num_candidates : 1;
    const Candidates found = is_stochastic ? draw_candidates(distribution, num_candidates, i, dtype, requests)
                                           : only_candidate(distribution, dtype);
    const at::Tensor next = pick(found.latents, found.chosen);
    all_latents.push_back(next);
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
  trajectory.log_probs = at::stack(all_log_probs, 1);
  return trajectory;
}

Transitions select_transitions(const Trajectory& trajectory, std::span<const TransitionIndex> indices) {
  const int64_t num_items = trajectory.latents.size(0);
  const int64_t num_points = trajectory.latents.size(1);
  std::vector<int64_t> items, rows, timesteps, previous_timesteps;
  for (const auto& [item, step] : indices) {
    check_usage(item >= 0 && item < num_items && step >= 0 && step + 1 < num_points, "there is no step ", step,
                " of item ", item, " in a trajectory of ", num_items, " items over ", num_points - 1, " steps");
    check_usage(trajectory.is_stochastic[static_cast<size_t>(step)], "step ", step,
                " of this trajectory is deterministic and has no log-probability");
    items.push_back(item);
    rows.push_back(item * num_points + step);
    timesteps.push_back(trajectory.steps[static_cast<size_t>(step)].timestep);
    previous_timesteps.push_back(trajectory.steps[static_cast<size_t>(step)].previous_timestep);
  }
  const auto on_device = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(trajectory.latents.device());
  };
  const at::Tensor flat = trajectory.latents.flatten(0, 1);
  return {.latents = flat.index_select(0, on_device(rows)),
          .next = flat.index_select(0, on_device(rows) + 1),
          .timesteps = on_device(timesteps),
          .previous_timesteps = on_device(previous_timesteps),
          .conditioning = select_rows(trajectory.conditioning, on_device(items))};
}

ReplayedTransitions replay(unet::Denoiser& denoiser, const DdimPolicy& policy, const Transitions& transitions) {
  ReplayedTransitions replayed;
  replayed.step = policy.step(denoiser, transitions.latents, transitions.timesteps, transitions.previous_timesteps,
                              transitions.conditioning, policy.eta);
  replayed.log_probs = log_probs_of(replayed.step, transitions.next);
  return replayed;
}

ReplayedTransitions replay_in_pieces(unet::Denoiser& denoiser, const DdimPolicy& policy, const Transitions& transitions,
                                     int64_t rows_at_once) {
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
