#include "training/online/decisions.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace prefusion::training {
namespace {

using losses::TrajectoryInput;

bool needs(const OnlineRun& run, TrajectoryInput input) {
  return std::ranges::find(run.objective.needs, input) != run.objective.needs.end();
}

// One number a row to [B, k, S]: rows that members share are repeated.
at::Tensor of_rows(const at::Tensor& values, at::IntArrayRef shape) {
  if (values.numel() == shape[0] * shape[1] * shape[2]) return values.reshape(shape);
  return values.view({shape[0], 1, 1}).expand(shape);
}

// Pictures of rows to [B, k, S, C, h, w].
at::Tensor pictures_of_rows(const at::Tensor& latents, at::IntArrayRef shape) {
  const at::IntArrayRef picture = latents.sizes().slice(latents.dim() - 3);
  std::vector<int64_t> wanted = shape.vec();
  wanted.insert(wanted.end(), picture.begin(), picture.end());
  if (latents.numel() == c10::multiply_integers(wanted)) return latents.reshape(wanted);
  return latents.view({shape[0], 1, 1, picture[0], picture[1], picture[2]}).expand(wanted);
}

}  // namespace

ReplayedDecisions replay_decisions(const OnlineRun& run, const pipelines::DdimPolicy& sampling,
                                   const Decisions& decisions) {
  const at::IntArrayRef shape = decisions.shape();
  const pipelines::Transitions& transitions = decisions.transitions;
  const int64_t rows_at_once = run.objective.sums_over_steps ? shape[0] * shape[1] : transitions.latents.size(0);
  const auto replay = [&](unet::Denoiser& network) {
    return pipelines::replay_in_pieces(network, sampling, transitions, rows_at_once);
  };
  const pipelines::ReplayedTransitions now = replay(*run.policy.denoiser);
  ReplayedDecisions replayed{.batch = {}, .std = of_rows(now.step.std.detach(), shape)};
  losses::TrajectoryBatch& batch = replayed.batch;
  batch.log_prob = now.log_probs.view(shape);
  batch.log_prob_old = decisions.log_prob_old;
  batch.reward = decisions.reward;
  batch.advantage = decisions.advantage;
  batch.num_elements = static_cast<double>(transitions.latents[0].numel());
  if (run.reference != nullptr) {
    pipelines::ReplayedTransitions then;
    run.reference->with_network([&](unet::Denoiser& network) { then = replay(network); });
    batch.log_prob_ref = then.log_probs.view(shape);
    if (needs(run, TrajectoryInput::kKl)) {
      batch.kl = of_rows(schedulers::mean_kl(now.step.mean, then.step.mean, now.step.std.detach()), shape);
    }
  }
  // The KL of DDIM steps counts as it is.
  if (needs(run, TrajectoryInput::kStepSize)) batch.step_size = at::ones({shape[2]}, batch.log_prob_old.options());
  return replayed;
}

void trace_conditioning(TraceWriter& trace, const pipelines::GuidedConditioning& conditioning) {
  trace.keep("encoder_hidden_states", conditioning.prompt.encoder_hidden_states);
  trace.keep("pooled", conditioning.prompt.pooled);
  trace.keep("time_ids", conditioning.prompt.time_ids);
  trace.keep("negative_hidden_states", conditioning.negative.encoder_hidden_states);
  trace.keep("negative_pooled", conditioning.negative.pooled);
}

void trace_decisions(TraceWriter& trace, const Decisions& decisions, const ReplayedDecisions& replayed) {
  const pipelines::Transitions& transitions = decisions.transitions;
  const at::IntArrayRef shape = decisions.shape();
  const losses::TrajectoryBatch& batch = replayed.batch;
  const at::Tensor& timesteps = transitions.timesteps;
  trace.keep("latents", pictures_of_rows(transitions.latents, shape));
  trace.keep("next_latents", pictures_of_rows(transitions.next, shape));
  trace.keep("timesteps", of_rows(timesteps, shape));
  trace.keep("previous_timesteps", of_rows(transitions.previous_timesteps, shape));
  const at::Tensor first_rows = at::arange(shape[0], timesteps.options()) * (timesteps.size(0) / shape[0]);
  trace_conditioning(trace, pipelines::select_rows(transitions.conditioning, first_rows));
  trace.keep("std", replayed.std);
  trace.keep("log_prob", batch.log_prob);
  trace.keep("log_prob_old", batch.log_prob_old);
  trace.keep("log_prob_ref", batch.log_prob_ref);
  trace.keep("kl", batch.kl);
  trace.keep("reward", batch.reward);
  trace.keep("advantage", batch.advantage);
  trace.keep("micro_groups", at::full({1}, shape[0], at::kLong));
}

}  // namespace prefusion::training
