#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "losses/objective.h"
#include "schedulers/noise_schedule.h"
#include "training/batch_source.h"
#include "training/reference_policy.h"
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

// One micro-step of preference training: draws, noise, reference, policy, errors, objective. It owns nothing but how
// they meet; everything random comes from (seed, item, draw).
class TrainStep {
 public:
  TrainStep(unet::Denoiser& policy, ReferencePolicy* reference, const schedulers::NoiseSchedule& schedule,
            const losses::Objective& objective, const losses::ObjectiveParams& params, LatentScaling scaling,
            uint64_t seed, at::ScalarType dtype);

  // Forward pass with the timesteps drawn for each group. The caller differentiates `loss.loss`.
  StepTensors forward(const EncodedBatch& batch) const;

  // The same at timesteps of the caller's choice ([B], int64) and, where given, known reference errors.
  StepTensors forward_at(const EncodedBatch& batch, const at::Tensor& timesteps,
                         const at::Tensor& known_error_ref = {}) const;

  // The timestep of each group, uniform over the schedule: [B] int64.
  at::Tensor draw_timesteps(const EncodedBatch& batch) const;

  uint64_t seed() const { return seed_; }

 private:
  at::Tensor sample_latents(const EncodedBatch& batch) const;

  unet::Denoiser& policy_;
  ReferencePolicy* reference_;
  const schedulers::NoiseSchedule& schedule_;
  const losses::Objective& objective_;
  losses::ObjectiveParams params_;
  LatentScaling scaling_;
  uint64_t seed_;
  at::ScalarType dtype_;
};

}  // namespace prefusion::training
