#include "training/group_inputs.h"

#include <ATen/ATen.h>

#include "core/device.h"
#include "core/rng.h"
#include "kernels/noise_and_target/noise_and_target.h"

namespace prefusion::training {
namespace {

DrawKey key_of(uint64_t seed, const GroupRef& group) {
  return {seed, static_cast<uint64_t>(group.item), group.draw};
}

}  // namespace

unet::Conditioning GroupInputs::conditioning_on(const text::PromptStates& states, at::ScalarType dtype) const {
  const text::PromptStates items = states.map([&](const at::Tensor& part) {
    return has_item_prompts ? part.flatten(0, 1) : part.repeat_interleave(timesteps.size(1), 0);
  });
  unet::Conditioning result{.encoder_hidden_states = items.encoder_hidden_states.to(dtype),
                            .encoder_mask = items.encoder_mask};
  if (items.pooled.defined()) result.pooled = items.pooled.to(dtype);
  if (guidance) result.guidance = at::full({timesteps.numel()}, *guidance, latents.options().dtype(at::kFloat));
  if (time_ids.defined()) result.time_ids = time_ids.flatten(0, 1).to(dtype);
  return result;
}

at::Tensor GroupInputMaker::sample_latents(const EncodedBatch& batch) const {
  std::vector<at::Tensor> draws;
  for (const GroupRef& group : batch.groups) {
    draws.push_back(philox_randn(batch.mean.sizes().slice(1), key_of(seed_, group), RandomPurpose::kPosterior));
  }
  const at::Tensor noise = to_device(at::stack(draws), batch.mean.device());
  return (batch.mean + batch.std * noise - scaling_.shift) * scaling_.scale;
}

GroupInputs GroupInputMaker::make_forward(const EncodedBatch& batch, const at::Tensor& timesteps,
                                          const BatchPrompts& prompts) const {
  GroupInputs inputs;
  std::vector<int64_t> streams;
  for (const GroupRef& group : batch.groups) {
    streams.push_back(static_cast<int64_t>(random_stream(key_of(seed_, group), RandomPurpose::kNoise)));
  }
  inputs.latents = sample_latents(batch);
  inputs.noise_streams = to_device(at::tensor(streams, at::kLong), inputs.latents.device());
  inputs.timesteps = timesteps.unsqueeze(1).expand({batch.size(), batch.items_per_group()}).contiguous();
  inputs.told_timesteps = schedule_.denoiser_timesteps(inputs.timesteps);
  if (schedule_.is_flow()) inputs.sigmas = schedule_.noise_scale(inputs.timesteps);
  inputs.has_item_prompts = batch.item_prompts.defined();
  inputs.prompts = inputs.has_item_prompts ? batch.item_prompts : batch.prompts;
  if (prompts.start.defined()) inputs.prompts = prompts.start;
  inputs.policy_prompts = prompts.policy;
  inputs.time_ids = batch.time_ids;
  inputs.guidance = guidance_;
  const auto noisy =
      kernels::noise_and_target(inputs.latents, inputs.noise_streams, seed_, schedule_.signal_scale(inputs.timesteps),
                                schedule_.noise_scale(inputs.timesteps), schedule_.prediction_type());
  inputs.noisy_latents = noisy.noisy_latents;
  inputs.target = noisy.target;
  return inputs;
}

GroupInputs GroupInputMaker::make(const EncodedBatch& batch, const at::Tensor& timesteps, unet::Denoiser& policy,
                                  const BatchPrompts& prompts) const {
  GroupInputs inputs = make_forward(batch, timesteps, prompts);
  if (source_.source != losses::LatentSource::kForwardNoise) invert(batch, inputs, policy);
  return inputs;
}

void GroupInputMaker::invert(const EncodedBatch& batch, GroupInputs& inputs, unet::Denoiser& policy) const {
  const unet::Conditioning conditioning = inputs.policy_conditioning(dtype_);
  const auto rows_of = [&](at::IntArrayRef items) {
    return to_device(at::tensor(items, at::kLong), inputs.latents.device());
  };
  const auto denoise = [&](const at::Tensor& latents, const at::Tensor& timesteps, at::IntArrayRef items) {
    return policy.forward(latents.to(dtype_), timesteps, unet::select_rows(conditioning, rows_of(items)));
  };
  // The noise of a walk's step is each item's own, and that of a group's draw.
  const int64_t k = inputs.latents.size(1);
  const auto draw_noise = [&](const at::Tensor& latents, at::IntArrayRef items, int64_t step) {
    std::vector<at::Tensor> draws;
    for (const int64_t item : items) {
      const GroupRef& group = batch.groups[item / k];
      const auto position = static_cast<uint64_t>(step * k + item % k + 1);
      const DrawKey key{seed_, static_cast<uint64_t>(group.item), group.draw + (position << 32)};
      draws.push_back(philox_randn(latents.sizes().slice(1), key, RandomPurpose::kInversion));
    }
    return to_device(at::stack(draws), latents.device());
  };
  const schedulers::DdimInversion inversion(schedule_.config(), source_.inversion);
  const auto inverted = inversion.invert(inputs.latents.flatten(0, 1), inputs.timesteps.flatten(), denoise, draw_noise);
  inputs.noisy_latents = inverted.noisy_latents.view_as(inputs.latents);
  inputs.inverted_noise = inverted.noise.view_as(inputs.latents);
  inputs.target = schedule_.target(inputs.latents, inputs.inverted_noise, inputs.timesteps);
}

}  // namespace prefusion::training
