#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "losses/online/trajectory_batch.h"
#include "pipelines/trajectory.h"
#include "training/online/online_method.h"

namespace prefusion::training {

// Decisions to train on, as they were sampled: B groups of k members over S steps, in that order of rows.
struct Decisions {
  // M = B * k * S rows; or M = B with k draws from each x_t (and S = 1), where members leave one common state.
  pipelines::Transitions transitions;
  at::Tensor log_prob_old;  // [B, k, S]
  at::Tensor reward;        // [B, k]
  at::Tensor advantage;     // [B, k]; may be undefined
  at::Tensor mean_old;      // [M, C, h, w] of the steps as they were sampled; may be undefined

  at::IntArrayRef shape() const { return log_prob_old.sizes(); }
};

// What the networks say of them.
struct ReplayedDecisions {
  losses::TrajectoryBatch batch;
  at::Tensor std;  // [B, k, S] deviation of each step
};

// Policy and, where there is one, reference on the decisions. Objectives that sum over steps get whole trajectories: a
// step's share at a time, each recomputed in the backward pass, so that memory does not grow with the number of steps.
ReplayedDecisions replay_decisions(const OnlineRun& run, const pipelines::SamplingPolicy& sampling,
                                   const Decisions& decisions);

// Records what another program needs to recompute the loss (docs/formats.md).
void trace_decisions(TraceWriter& trace, const schedulers::StochasticSampler& sampler, const Decisions& decisions,
                     const ReplayedDecisions& replayed);

// Times of states [B, ...] under the names of traces: timesteps the denoiser is told, and levels of a flow.
void trace_times(TraceWriter& trace, const schedulers::StochasticSampler& sampler, const at::Tensor& times);

// What of the policy's steps another program must be told.
Metadata sampling_metadata(const pipelines::SamplingPolicy& sampling);

// The states of prompts, one row for each of B groups, and of negative prompts under guidance.
void trace_conditioning(TraceWriter& trace, const pipelines::GuidedConditioning& conditioning);

}  // namespace prefusion::training
