#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "losses/group_errors.h"
#include "schedulers/inversion.h"
#include "schedulers/noise_schedule.h"
#include "training/batch_source.h"
#include "unet/denoiser.h"

namespace prefusion::training {

// Maps unscaled VAE output to latents: (value - shift) * scale.
struct LatentScaling {
  double scale = 1.0;
  double shift = 0.0;
};

// Where noisy latents and targets come from.
struct LatentSourceOptions {
  losses::LatentSource source = losses::LatentSource::kForwardNoise;
  schedulers::InversionOptions inversion;  // for the other sources
};

// What the denoiser is asked about B groups of k items, and what it should answer.
struct GroupInputs {
  at::Tensor latents;          // [B, k, C, h, w] fp32, a draw of the posterior
  at::Tensor noise_streams;    // [B] int64: Philox streams of the groups' shared noise
  at::Tensor inverted_noise;   // [B, k, C, h, w] fp32, each item's own; only from inversion
  at::Tensor timesteps;        // [B, k] int64, positions in the schedule
  at::Tensor told_timesteps;   // [B, k] what the denoiser is told: the same, or fp32 sigma * T for a flow model
  at::Tensor sigmas;           // [B, k] fp32 for a flow model, else undefined
  text::PromptStates prompts;  // [B, ...], or [B, k, ...] where items have prompts of their own
  // Those the policy's own text encoders make, with gradients; undefined where it has none: `prompts` are its as well.
  text::PromptStates policy_prompts;
  bool has_item_prompts = false;
  at::Tensor time_ids;             // [B, k, n] where the model is told of sizes, else undefined
  std::optional<double> guidance;  // that a distilled model is told
  at::Tensor user_states;          // [B, M, U] of the groups' users, for the policy alone; undefined without
  at::Tensor noisy_latents;        // [B, k, C, h, w] fp32
  at::Tensor target;               // [B, k, C, h, w] fp32

  // The denoiser's arguments: the items of all groups are one batch of it.
  at::Tensor denoiser_latents(at::ScalarType dtype) const { return noisy_latents.flatten(0, 1).to(dtype); }
  at::Tensor denoiser_timesteps() const { return told_timesteps.flatten(); }
  unet::Conditioning conditioning(at::ScalarType dtype) const { return conditioning_on(prompts, dtype); }
  unet::Conditioning policy_conditioning(at::ScalarType dtype) const {
    return conditioning_on(policy_prompts.defined() ? policy_prompts : prompts, dtype);
  }

 private:
  unet::Conditioning conditioning_on(const text::PromptStates& states, at::ScalarType dtype) const;
};

// What text encoders in training make of a batch's prompts, as GroupInputs has them; undefined: the batch's own states.
struct BatchPrompts {
  text::PromptStates start, policy;
};

// Makes the inputs of batches. Everything random comes from (seed, item, draw); only inversion asks a network.
class GroupInputMaker {
 public:
  // `guidance` for models that are distilled under guidance, which have to be told a scale.
  GroupInputMaker(const schedulers::NoiseSchedule& schedule, LatentScaling scaling, LatentSourceOptions source,
                  uint64_t seed, at::ScalarType dtype, std::optional<double> guidance = std::nullopt)
      : schedule_(schedule), scaling_(scaling), source_(source), seed_(seed), dtype_(dtype), guidance_(guidance) {}

  // At timesteps [B] (int64, one a group), with one noise a group or, where the source says so, latents inverted by
  // `policy` as it is now.
  GroupInputs make(const EncodedBatch& batch, const at::Tensor& timesteps, unet::Denoiser& policy,
                   const BatchPrompts& prompts = {}) const;

  // The same from forward noise whatever the source is.
  GroupInputs make_forward(const EncodedBatch& batch, const at::Tensor& timesteps,
                           const BatchPrompts& prompts = {}) const;

 private:
  at::Tensor sample_latents(const EncodedBatch& batch) const;
  void invert(const EncodedBatch& batch, GroupInputs& inputs, unet::Denoiser& policy) const;

  const schedulers::NoiseSchedule& schedule_;
  LatentScaling scaling_;
  LatentSourceOptions source_;
  uint64_t seed_;
  at::ScalarType dtype_;
  std::optional<double> guidance_;
};

}  // namespace prefusion::training
