#include "training/train_step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/rng.h"
#include "kernels/item_error/item_error.h"
#include "kernels/noise_and_target/noise_and_target.h"

namespace prefusion::training {

TrainStep::TrainStep(unet::Denoiser& policy, ReferencePolicy* reference, const schedulers::NoiseSchedule& schedule,
                     const losses::Objective& objective, const losses::ObjectiveParams& params, LatentScaling scaling,
                     uint64_t seed, at::ScalarType dtype)
    : policy_(policy),
      reference_(reference),
      schedule_(schedule),
      objective_(objective),
      params_(params),
      scaling_(scaling),
      seed_(seed),
      dtype_(dtype) {}

at::Tensor TrainStep::sample_latents(const EncodedBatch& batch) const {
  std::vector<at::Tensor> draws;
  for (const GroupRef& group : batch.groups) {
    const DrawKey key{seed_, static_cast<uint64_t>(group.item), group.draw};
    draws.push_back(philox_randn(batch.mean.sizes().slice(1), key, RandomPurpose::kPosterior));
  }
  const at::Tensor noise = at::stack(draws).to(batch.mean.device());
  return (batch.mean + batch.std * noise - scaling_.shift) * scaling_.scale;
}

at::Tensor TrainStep::draw_timesteps(const EncodedBatch& batch) const {
  std::vector<int64_t> timesteps;
  for (const GroupRef& group : batch.groups) {
    const DrawKey key{seed_, static_cast<uint64_t>(group.item), group.draw};
    timesteps.push_back(CounterRng(key, RandomPurpose::kTimestep).below(schedule_.num_train_timesteps()));
  }
  return at::tensor(timesteps, at::kLong).to(batch.mean.device());
}

StepTensors TrainStep::forward(const EncodedBatch& batch) const {
  return forward_at(batch, draw_timesteps(batch));
}

StepTensors TrainStep::forward_at(const EncodedBatch& batch, const at::Tensor& group_timesteps,
                                  const at::Tensor& known_error_ref) const {
  const int64_t groups = batch.size();
  const int64_t k = batch.items_per_group();
  StepTensors step;

  // Inputs: one timestep and one noise a group, shared by its items.
  std::vector<int64_t> streams;
  for (const GroupRef& group : batch.groups) {
    const DrawKey key{seed_, static_cast<uint64_t>(group.item), group.draw};
    streams.push_back(static_cast<int64_t>(random_stream(key, RandomPurpose::kNoise)));
  }
  step.latents = sample_latents(batch);
  step.noise_streams = at::tensor(streams, at::kLong).to(step.latents.device());
  step.timesteps = group_timesteps.unsqueeze(1).expand({groups, k}).contiguous();
  step.encoder_hidden_states = batch.encoder_hidden_states;
  const auto noisy =
      kernels::noise_and_target(step.latents, step.noise_streams, seed_, schedule_.signal_scale(step.timesteps),
                                schedule_.noise_scale(step.timesteps), schedule_.prediction_type());
  step.noisy_latents = noisy.noisy_latents;
  step.target = noisy.target;

  // Predictions: the items of all groups are one batch of the denoiser.
  const at::Tensor input = step.noisy_latents.flatten(0, 1).to(dtype_);
  const at::Tensor timesteps = step.timesteps.flatten();
  const unet::Conditioning conditioning{batch.encoder_hidden_states.to(dtype_).repeat_interleave(k, 0)};
  const at::Tensor target = step.target.flatten(0, 1);
  if (known_error_ref.defined()) {
    step.error_ref = known_error_ref;
  } else if (reference_) {
    step.error_ref = kernels::item_error(reference_->predict(input, timesteps, conditioning), target).view({groups, k});
  }
  const at::Tensor prediction = policy_.forward(input, timesteps, conditioning);
  step.prediction = prediction.view_as(step.noisy_latents);
  step.error = kernels::item_error(prediction, target).view({groups, k});

  losses::GroupErrors errors;
  errors.error = step.error;
  errors.error_ref = step.error_ref;
  errors.labels = batch.labels;
  errors.scores = batch.scores;
  step.loss = objective_.compute(errors, params_);
  return step;
}

}  // namespace prefusion::training
