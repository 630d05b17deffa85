#include "training/online/decisions.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/json_config.h"
#include "schedulers/stochastic_flow.h"

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

ReplayedDecisions replay_decisions(const OnlineRun& run, const pipelines::SamplingPolicy& sampling,
                                   const Decisions& decisions) {
  const at::IntArrayRef shape = decisions.shape();
  const pipelines::Transitions& transitions = decisions.transitions;
  const int64_t rows_at_once = run.objective.sums_over_steps ? shape[0] * shape[1] : transitions.latents.size(0);
  const auto replay = [&](unet::Denoiser& network) {
    return pipelines::replay_in_pieces(network, sampling, transitions, rows_at_once);
  };
  // The reference first: one that is made of the policy's own weights changes them while it is asked, and the graph of
  // the policy must not see that.
  pipelines::ReplayedTransitions then;
  if (run.reference != nullptr) {
    run.reference->with_network([&](unet::Denoiser& network) { then = replay(network); });
  }
  const pipelines::ReplayedTransitions now = replay(*run.policy.denoiser);
  ReplayedDecisions replayed{.batch = {}, .std = of_rows(now.step.std.detach(), shape)};
  losses::TrajectoryBatch& batch = replayed.batch;
  batch.log_prob = now.log_probs.view(shape);
  batch.log_prob_old = decisions.log_prob_old;
  batch.reward = decisions.reward;
  batch.advantage = decisions.advantage;
  batch.num_elements = static_cast<double>(transitions.latents[0].numel());
  if (run.reference != nullptr) {
    batch.log_prob_ref = then.log_probs.view(shape);
    if (needs(run, TrajectoryInput::kKl)) {
      batch.kl = of_rows(schedulers::mean_kl(now.step.mean, then.step.mean, now.step.std.detach()), shape);
    }
  }
  if (needs(run, TrajectoryInput::kKlOld)) {
    batch.kl_old = of_rows(schedulers::mean_kl(now.step.mean, decisions.mean_old, now.step.std.detach()), shape);
  }
  // Steps are the same for all trajectories.
  const at::Tensor first = replayed.std.select(0, 0).select(0, 0);
  if (needs(run, TrajectoryInput::kStepStd)) batch.step_std = first;
  if (needs(run, TrajectoryInput::kStepSize)) {
    batch.step_size = sampling.sampler->step_size(transitions.times, transitions.next_times).slice(0, 0, shape[2]);
  }
  return replayed;
}

void trace_conditioning(TraceWriter& trace, const pipelines::GuidedConditioning& conditioning) {
  trace.keep("encoder_hidden_states", conditioning.prompt.encoder_hidden_states);
  trace.keep("pooled", conditioning.prompt.pooled);
  trace.keep("time_ids", conditioning.prompt.time_ids);
  trace.keep("encoder_mask", conditioning.prompt.encoder_mask);
  trace.keep("negative_hidden_states", conditioning.negative.encoder_hidden_states);
  trace.keep("negative_mask", conditioning.negative.encoder_mask);
  trace.keep("negative_pooled", conditioning.negative.pooled);
}

void trace_times(TraceWriter& trace, const schedulers::StochasticSampler& sampler, const at::Tensor& times) {
  trace.keep("timesteps", sampler.denoiser_timesteps(times));
  if (sampler.is_flow()) trace.keep("sigmas", times);
}

Metadata sampling_metadata(const pipelines::SamplingPolicy& sampling) {
  const auto* flow = dynamic_cast<const schedulers::StochasticFlow*>(sampling.sampler.get());
  if (flow == nullptr) return {{"eta", concat(sampling.noise)}};
  return {{"noise_level", concat(sampling.noise)},
          {"sde", flow->sde() == schedulers::FlowSde::kDanceGrpo ? "dance-grpo" : "flow-grpo"},
          {"second_sigma", Json(flow->second_time()).dump()}};
}

void trace_decisions(TraceWriter& trace, const schedulers::StochasticSampler& sampler, const Decisions& decisions,
                     const ReplayedDecisions& replayed) {
  const pipelines::Transitions& transitions = decisions.transitions;
  const at::IntArrayRef shape = decisions.shape();
  const losses::TrajectoryBatch& batch = replayed.batch;
  const at::Tensor& times = transitions.times;
  trace.keep("latents", pictures_of_rows(transitions.latents, shape));
  trace.keep("next_latents", pictures_of_rows(transitions.next, shape));
  trace_times(trace, sampler, of_rows(times, shape));
  trace.keep(sampler.is_flow() ? "next_sigmas" : "previous_timesteps", of_rows(transitions.next_times, shape));
  const at::Tensor first_rows = at::arange(shape[0], times.options().dtype(at::kLong)) * (times.size(0) / shape[0]);
  trace_conditioning(trace, pipelines::select_rows(transitions.conditioning, first_rows));
  trace.keep("std", replayed.std);
  trace.keep("log_prob", batch.log_prob);
  trace.keep("log_prob_old", batch.log_prob_old);
  trace.keep("log_prob_ref", batch.log_prob_ref);
  trace.keep("kl", batch.kl);
  trace.keep("kl_old", batch.kl_old);
  trace.keep("reward", batch.reward);
  trace.keep("advantage", batch.advantage);
  trace.keep("micro_groups", at::full({1}, shape[0], at::kLong));
}

}  // namespace prefusion::training
