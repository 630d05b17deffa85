#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "pipelines/guided_denoiser.h"
#include "pipelines/keyed_request.h"
#include "pipelines/text_to_image.h"
#include "schedulers/gaussian_step.h"
#include "schedulers/stochastic_ddim.h"

namespace prefusion::pipelines {

// Sampling as a sequence of decisions: pi(x_prev | x_t, prompt) is the Gaussian of a stochastic DDIM step around the
// guided prediction ("Training Diffusion Models with Reinforcement Learning", arXiv 2305.13301). Guidance is part of
// the policy: training must predict with the guidance that was sampled with.
struct DdimPolicy {
  schedulers::StochasticDdim sampler;
  GuidanceOptions guidance;
  double eta = 1.0;

  // The distribution of x_prev for latents [N, C, h, w] at timesteps [N]; fp32, differentiable in the weights. `eta`
  // here is this step's: that of the policy, or 0.
  schedulers::GaussianStep step(unet::Denoiser& denoiser, const at::Tensor& latents, const at::Tensor& timesteps,
                                const at::Tensor& previous_timesteps, const GuidedConditioning& conditioning,
                                double eta) const;
};

// The number of the draw (keyed_noise) that a candidate of a step takes; draw 0 is the initial latents.
constexpr int64_t kMaxCandidates = 1024;
constexpr uint64_t candidate_draw(int64_t step, int64_t candidate) {
  return static_cast<uint64_t>((step + 1) * kMaxCandidates + candidate);
}

// Sampling steps first .. first + count - 1; all of them unless said otherwise.
struct StepRange {
  int64_t first = 0;
  int64_t count = std::numeric_limits<int64_t>::max();
  bool contains(int64_t index) const { return index >= first && index - first < count; }
};

// One step as it was taken, for recording, scoring and stopping.
struct TrajectoryPoint {
  int64_t index;
  int64_t count;  // steps in all
  schedulers::DdimStep step;
  const at::Tensor& latents;     // [N, C, h, w] x_t
  const at::Tensor& candidates;  // [N, K, C, h, w] draws of x_prev; K = 1 where the trajectory does not branch
  const at::Tensor& log_probs;   // [N, K]
  const at::Tensor& chosen;      // [N] int64, the candidate the trajectory goes on from
  const GuidedConditioning& conditioning;
};

struct TrajectoryOptions {
  int64_t num_inference_steps = 50;
  double eta = 1.0;  // 1: DDPM's noise
  GuidanceOptions guidance = {.scale = 5.0};
  StepRange stochastic_steps;  // MixGRPO (arXiv 2507.21802): random here, deterministic DDIM elsewhere
  int64_t num_candidates = 1;  // SPO (arXiv 2406.04314): draws of x_prev from the same x_t, to be compared; the
                               // trajectory goes on from a random one
  StepRange candidate_steps;   // stochastic steps where there is more than one candidate
  bool keeps_fp32 = true;      // latents kept in fp32, else in the denoiser's dtype; log-probabilities fit what is kept
  int64_t height_px = 0;       // 0: the model's own size
  int64_t width_px = 0;
  std::function<bool(const TrajectoryPoint&)> on_step;  // after each step; false stops here; may be empty
};

// N items over the S steps that were taken.
struct Trajectory {
  at::Tensor latents;                       // [N, S + 1, C, h, w], x_T first, x_0 last
  at::Tensor log_probs;                     // [N, S] fp32, MEAN over elements; 0 at deterministic steps
  std::vector<schedulers::DdimStep> steps;  // [S]
  std::vector<bool> is_stochastic;          // [S]; other steps are no decisions and cannot be replayed
  GuidedConditioning conditioning;          // N rows
  DdimPolicy policy;
};

// Samples without gradients. Item i depends on its request and the options alone: not on the batch, and candidate 0 not
// on how many there are. Usage error for options the model cannot do.
Trajectory sample_trajectories(TextToImage& pipeline, std::span<const KeyedRequest> requests,
                               const TrajectoryOptions& options);

// M decisions, of any items and steps.
struct Transitions {
  at::Tensor latents;             // [M, C, h, w] x_t
  at::Tensor next;                // [M, C, h, w] x_prev as it was drawn; [M, n, C, h, w] for n draws from each x_t
  at::Tensor timesteps;           // [M] int64
  at::Tensor previous_timesteps;  // [M] int64
  GuidedConditioning conditioning;
};

// A decision of a trajectory.
struct TransitionIndex {
  int64_t item;
  int64_t step;
};

// Usage error for a step that is out of range or deterministic.
Transitions select_transitions(const Trajectory& trajectory, std::span<const TransitionIndex> indices);

// A decision as a network sees it.
struct ReplayedTransitions {
  schedulers::GaussianStep step;  // [M, C, h, w] and [M]; for the KL to another network's
  at::Tensor log_probs;           // [M] or [M, n] fp32, MEAN over elements
};

// The log-probability of stored decisions under the weights of now, differentiable in them. With unchanged weights it
// is that of sampling: to the bit on the CPU in batches of the same size.
ReplayedTransitions replay(unet::Denoiser& denoiser, const DdimPolicy& policy, const Transitions& transitions);

// The same, `rows_at_once` decisions at a time, with the activations of one such piece in memory: values are found
// without recording, and the backward pass makes each piece again with the gradient that the loss has for it. One more
// forward pass than `replay`; the denoiser must not be changed before the backward pass. `step.std` is a constant here.
ReplayedTransitions replay_in_pieces(unet::Denoiser& denoiser, const DdimPolicy& policy, const Transitions& transitions,
                                     int64_t rows_at_once);

}  // namespace prefusion::pipelines
