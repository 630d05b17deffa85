#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "pipelines/guided_denoiser.h"
#include "pipelines/keyed_request.h"
#include "pipelines/text_to_image.h"
#include "schedulers/gaussian_step.h"
#include "schedulers/stochastic_flow.h"
#include "schedulers/stochastic_sampler.h"

namespace prefusion::pipelines {

struct TrajectoryOptions;

// Sampling as a sequence of decisions: pi(x_next | x, prompt) is the Gaussian of a stochastic step around the guided
// prediction, one of DDIM ("Training Diffusion Models with Reinforcement Learning", arXiv 2305.13301) or of a flow's
// SDE (Flow-GRPO, arXiv 2505.05470). Guidance is part of the policy: training must predict with the guidance that was
// sampled with.
struct SamplingPolicy {
  std::shared_ptr<const schedulers::StochasticSampler> sampler;
  GuidanceOptions guidance;  // what is asked twice for (TextToImage::asked_twice)
  double noise = 1.0;        // of random steps

  // The guided prediction for latents [N, C, h, w] at times [N], learned variances left out.
  at::Tensor predict(unet::Denoiser& denoiser, const at::Tensor& latents, const at::Tensor& times,
                     const GuidedConditioning& conditioning) const;

  // The distribution of the next latents; fp32, differentiable in the weights. `step_noise` is this step's: the
  // policy's, or 0.
  schedulers::GaussianStep step(unet::Denoiser& denoiser, const at::Tensor& latents, const at::Tensor& times,
                                const at::Tensor& next_times, const GuidedConditioning& conditioning,
                                double step_noise) const;

  // One time for each of `count` items, as the sampler takes them.
  at::Tensor filled(double time, int64_t count, at::Device device) const;
};

// Whether the model's steps are those of a flow.
bool is_flow(const TextToImage& pipeline);

// What the options mean for a model. Usage error for options it cannot do.
SamplingPolicy make_policy(const TextToImage& pipeline, const TrajectoryOptions& options);

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
  schedulers::SamplerStep step;
  const at::Tensor& latents;     // [N, C, h, w] before the step
  const at::Tensor& candidates;  // [N, K, C, h, w] draws of the next; K = 1 where the trajectory does not branch
  const at::Tensor& log_probs;   // [N, K]
  const at::Tensor& chosen;      // [N] int64, the candidate the trajectory goes on from
  const GuidedConditioning& conditioning;
};

struct TrajectoryOptions {
  int64_t num_inference_steps = 50;
  double noise = 1.0;  // of random steps: eta of DDIM (1: DDPM's), the noise level of a flow's SDE (Flow-GRPO: 0.7)
  schedulers::FlowSde flow_sde = schedulers::FlowSde::kFlowGrpo;
  GuidanceOptions guidance = {.scale = 5.0};
  StepRange stochastic_steps;  // MixGRPO (arXiv 2507.21802): random here, deterministic elsewhere
  int64_t num_candidates = 1;  // SPO (arXiv 2406.04314): draws from the same latents, to be compared; the
                               // trajectory goes on from a random one
  StepRange candidate_steps;   // stochastic steps where there is more than one candidate
  bool keeps_means = false;    // of the steps, for objectives that compare with them
  bool keeps_fp32 = true;      // latents kept in fp32, else in the denoiser's dtype; log-probabilities fit what is kept
  int64_t height_px = 0;       // 0: the model's own size
  int64_t width_px = 0;
  std::function<bool(const TrajectoryPoint&)> on_step;  // after each step; false stops here; may be empty
};

// N items over the S steps that were taken.
struct Trajectory {
  at::Tensor latents;                          // [N, S + 1, C, h, w], pure noise first, clean ones last
  at::Tensor means;                            // [N, S, C, h, w] fp32 of the steps, with keeps_means; else undefined
  at::Tensor log_probs;                        // [N, S] fp32, MEAN over elements; 0 at deterministic steps
  std::vector<schedulers::SamplerStep> steps;  // [S]
  std::vector<bool> is_stochastic;             // [S]; other steps are no decisions and cannot be replayed
  GuidedConditioning conditioning;             // N rows
  SamplingPolicy policy;
};

// Samples without gradients. Item i depends on its request and the options alone: not on the batch, and candidate 0 not
// on how many there are. Usage error for options the model cannot do.
Trajectory sample_trajectories(TextToImage& pipeline, std::span<const KeyedRequest> requests,
                               const TrajectoryOptions& options);

// M decisions, of any items and steps.
struct Transitions {
  at::Tensor latents;     // [M, C, h, w]
  at::Tensor next;        // [M, C, h, w] as it was drawn; [M, n, C, h, w] for n draws from the same latents
  at::Tensor times;       // [M] of the sampler's type
  at::Tensor next_times;  // [M]
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
ReplayedTransitions replay(unet::Denoiser& denoiser, const SamplingPolicy& policy, const Transitions& transitions);

// The same, `rows_at_once` decisions at a time, with the activations of one such piece in memory: values are found
// without recording, and the backward pass makes each piece again with the gradient that the loss has for it. One more
// forward pass than `replay`; the denoiser must not be changed before the backward pass. `step.std` is a constant here.
ReplayedTransitions replay_in_pieces(unet::Denoiser& denoiser, const SamplingPolicy& policy,
                                     const Transitions& transitions, int64_t rows_at_once);

}  // namespace prefusion::pipelines
