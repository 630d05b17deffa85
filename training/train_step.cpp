#include "training/train_step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/rng.h"
#include "kernels/item_error/item_error.h"
#include "kernels/noise_and_target/noise_and_target.h"

namespace prefusion::training {

TrainStep::TrainStep(unet::Denoiser& policy, ReferencePolicy* reference, const schedulers::NoiseSchedule& schedule,
                     const losses::Objective& objective, TrainStepOptions options)
    : policy_(policy),
      reference_(reference),
      schedule_(schedule),
      objective_(objective),
      options_(std::move(options)) {}

StepTensors TrainStep::forward(const EncodedBatch& batch, const at::Tensor& timesteps,
                               const at::Tensor& known_error_ref) const {
  StepTensors step = make_tensors(batch, timesteps);
  const Inputs inputs = make_inputs(step);
  if (known_error_ref.defined()) {
    step.error_ref = known_error_ref;
  } else if (reference_) {
    step.error_ref =
        item_errors(reference_->predict(inputs.noisy_latents, inputs.timesteps, inputs.conditioning), step);
  }
  const at::Tensor prediction = policy_.forward(inputs.noisy_latents, inputs.timesteps, inputs.conditioning);
  step.prediction = prediction.view_as(step.noisy_latents);
  step.error = item_errors(prediction, step);

  losses::GroupErrors errors;
  errors.error = step.error;
  errors.error_ref = step.error_ref;
  errors.labels = batch.labels;
  errors.scores = batch.scores;
  step.loss = objective_.compute(errors, options_.params);
  return step;
}

at::Tensor TrainStep::draw_timesteps(const EncodedBatch& batch) const {
  std::vector<int64_t> timesteps;
  for (const GroupRef& group : batch.groups) {
    timesteps.push_back(options_.timesteps.draw({options_.seed, static_cast<uint64_t>(group.item), group.draw}));
  }
  return at::tensor(timesteps, at::kLong).to(batch.mean.device());
}

at::Tensor TrainStep::reference_errors(const EncodedBatch& batch, const at::Tensor& timesteps) const {
  at::NoGradGuard no_grad;
  const StepTensors step = make_tensors(batch, timesteps);
  const Inputs inputs = make_inputs(step);
  return item_errors(reference_->predict(inputs.noisy_latents, inputs.timesteps, inputs.conditioning), step);
}

at::Tensor TrainStep::policy_errors(const EncodedBatch& batch, const at::Tensor& timesteps) const {
  at::NoGradGuard no_grad;
  const StepTensors step = make_tensors(batch, timesteps);
  const Inputs inputs = make_inputs(step);
  return item_errors(policy_.forward(inputs.noisy_latents, inputs.timesteps, inputs.conditioning), step);
}

at::Tensor TrainStep::sample_latents(const EncodedBatch& batch) const {
  std::vector<at::Tensor> draws;
  for (const GroupRef& group : batch.groups) {
    const DrawKey key{options_.seed, static_cast<uint64_t>(group.item), group.draw};
    draws.push_back(philox_randn(batch.mean.sizes().slice(1), key, RandomPurpose::kPosterior));
  }
  const at::Tensor noise = at::stack(draws).to(batch.mean.device());
  return (batch.mean + batch.std * noise - options_.scaling.shift) * options_.scaling.scale;
}

// One timestep and one noise a group, shared by its items.
StepTensors TrainStep::make_tensors(const EncodedBatch& batch, const at::Tensor& timesteps) const {
  StepTensors step;
  std::vector<int64_t> streams;
  for (const GroupRef& group : batch.groups) {
    const DrawKey key{options_.seed, static_cast<uint64_t>(group.item), group.draw};
    streams.push_back(static_cast<int64_t>(random_stream(key, RandomPurpose::kNoise)));
  }
  step.latents = sample_latents(batch);
  step.noise_streams = at::tensor(streams, at::kLong).to(step.latents.device());
  step.timesteps = timesteps.unsqueeze(1).expand({batch.size(), batch.items_per_group()}).contiguous();
  step.encoder_hidden_states = batch.encoder_hidden_states;
  const auto noisy =
      kernels::noise_and_target(step.latents, step.noise_streams, options_.seed, schedule_.signal_scale(step.timesteps),
                                schedule_.noise_scale(step.timesteps), schedule_.prediction_type());
  step.noisy_latents = noisy.noisy_latents;
  step.target = noisy.target;
  return step;
}

TrainStep::Inputs TrainStep::make_inputs(const StepTensors& step) const {
  const int64_t k = step.latents.size(1);
  return {.noisy_latents = step.noisy_latents.flatten(0, 1).to(options_.dtype),
          .timesteps = step.timesteps.flatten(),
          .conditioning = {step.encoder_hidden_states.to(options_.dtype).repeat_interleave(k, 0)}};
}

at::Tensor TrainStep::item_errors(const at::Tensor& prediction, const StepTensors& step) const {
  return kernels::item_error(prediction, step.target.flatten(0, 1)).view(step.timesteps.sizes());
}

}  // namespace prefusion::training
