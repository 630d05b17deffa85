#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "losses/objective.h"
#include "schedulers/noise_schedule.h"
#include "training/batch_source.h"
#include "training/reference_policy.h"
#include "training/timestep_sampler.h"
#include "unet/denoiser.h"

namespace prefusion::training {

// Maps unscaled VAE output to latents: (value - shift) * scale.
struct LatentScaling {
  double scale = 1.0;
  double shift = 0.0;
};

// All tensors of one micro-step, as the trace records them. B groups of k items.
struct StepTensors {
  at::Tensor latents;                // [B, k, C, h, w] fp32
  at::Tensor noise_streams;          // [B] int64: Philox streams the shared noise of each group comes from
  at::Tensor timesteps;              // [B, k] int64
  at::Tensor encoder_hidden_states;  // [B, L, D]
  at::Tensor noisy_latents;          // [B, k, C, h, w]
  at::Tensor target;                 // [B, k, C, h, w] fp32
  at::Tensor prediction;             // [B, k, C, h, w], carries the graph
  at::Tensor error;                  // [B, k] fp32, carries the graph
  at::Tensor error_ref;              // [B, k] fp32 or undefined
  losses::LossOutput loss;
};

// What a train step is made of besides the networks.
struct TrainStepOptions {
  losses::ObjectiveParams params;
  LatentScaling scaling;
  TimestepSampler timesteps;
  uint64_t seed = 0;
  at::ScalarType dtype = at::kFloat;
};

// One micro-step of preference training: draws, noise, reference, policy, errors, objective. It owns nothing but how
// they meet; everything random comes from (seed, item, draw).
class TrainStep {
 public:
  // `reference` may be null: then there are no reference errors but those the caller knows.
  TrainStep(unet::Denoiser& policy, ReferencePolicy* reference, const schedulers::NoiseSchedule& schedule,
            const losses::Objective& objective, TrainStepOptions options);

  // Forward pass at timesteps [B] (int64, one a group). `known_error_ref` [B, k] takes the place of a reference pass.
  // The caller differentiates `loss.loss`.
  StepTensors forward(const EncodedBatch& batch, const at::Tensor& timesteps,
                      const at::Tensor& known_error_ref = {}) const;

  // The timestep of each group: [B] int64.
  at::Tensor draw_timesteps(const EncodedBatch& batch) const;

  // Errors of the reference, or of the policy as it is now, at the very inputs forward() would make; without autograd.
  // [B, k] fp32
  at::Tensor reference_errors(const EncodedBatch& batch, const at::Tensor& timesteps) const;
  at::Tensor policy_errors(const EncodedBatch& batch, const at::Tensor& timesteps) const;

  bool has_reference() const { return reference_ != nullptr; }

 private:
  // The denoiser's arguments: the items of all groups are one batch of it.
  struct Inputs {
    at::Tensor noisy_latents;  // [B * k, C, h, w] in the run's dtype
    at::Tensor timesteps;      // [B * k]
    unet::Conditioning conditioning;
  };

  at::Tensor sample_latents(const EncodedBatch& batch) const;
  StepTensors make_tensors(const EncodedBatch& batch, const at::Tensor& timesteps) const;
  Inputs make_inputs(const StepTensors& step) const;
  at::Tensor item_errors(const at::Tensor& prediction, const StepTensors& step) const;

  unet::Denoiser& policy_;
  ReferencePolicy* reference_;
  const schedulers::NoiseSchedule& schedule_;
  const losses::Objective& objective_;
  TrainStepOptions options_;
};

}  // namespace prefusion::training
