#include "training/train_step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/device.h"
#include "core/rng.h"
#include "core/step_clock.h"
#include "kernels/item_error/item_error.h"
#include "losses/metrics.h"

namespace prefusion::training {
namespace {

// 1 - cosine between the prompts' text states, averaged over tokens: [B, B].
at::Tensor prompt_distances(const at::Tensor& encoder_hidden_states) {
  at::NoGradGuard no_grad;
  const at::Tensor states = encoder_hidden_states.to(at::kFloat).mean(1);
  const at::Tensor unit = states / states.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12);
  return 1.0 - unit.matmul(unit.t());
}

// The smallest mean of a mask that is divided by; an empty mask gives no error.
constexpr double kSmallestMaskMean = 1e-6;

// Products of a pair's residuals and, under masks, their squares (GroupErrors). With a mask m a residual is what its
// error's gradient is made of: the error is the mean of m / (mean m) times the squared difference.
void add_residual_products(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& masks,
                           losses::GroupErrors& errors) {
  at::Tensor residual = prediction.detach().to(at::kFloat) - target;
  if (masks.defined()) {
    residual = residual * (masks / masks.mean({2, 3, 4}, /*keepdim=*/true).clamp_min(kSmallestMaskMean));
    errors.residual_square = residual.square().flatten(2).mean(2);
  }
  errors.residual_dot = (residual.select(1, 0) * residual.select(1, 1)).flatten(1).mean(1);
}

// [B k, C or 2 C, h, w] -> [B, k, C, h, w]; objectives are about the prediction, not its variance.
at::Tensor latents_of(const at::Tensor& prediction, const GroupInputs& inputs) {
  return unet::without_variances(prediction, inputs.latents.size(2)).unflatten(0, inputs.latents.sizes().slice(0, 2));
}

}  // namespace

TrainStep::TrainStep(unet::Denoiser& policy, ReferencePolicy* reference, const schedulers::NoiseSchedule& schedule,
                     const losses::Objective& objective, TrainStepOptions options)
    : policy_(policy),
      reference_(reference),
      schedule_(schedule),
      objective_(objective),
      options_(std::move(options)),
      needs_(losses::with_needs_of(options_.loss, objective.info)),
      inputs_(schedule, options_.scaling, options_.latent_source, options_.seed, options_.dtype,
              policy.info().uses_guidance ? std::optional(options_.distilled_guidance) : std::nullopt) {}

StepInputs TrainStep::prepare(const EncodedBatch& batch, const at::Tensor& timesteps,
                              const at::Tensor& known_error_ref) const {
  StepInputs inputs{.groups = inputs_.make(batch, timesteps, policy_, encode_prompts(batch)),
                    .masks = batch.masks,
                    .known = known_of(batch)};
  inputs.groups.user_states = user_states(batch, options_.user_dropout);
  inputs.known.error_ref = known_error_ref;
  inputs.known.latent_source = options_.latent_source.source;
  add_draws(batch, timesteps, inputs.known);
  return inputs;
}

StepTensors TrainStep::compute(const StepInputs& inputs) const {
  StepTensors step{.inputs = inputs.groups, .prediction = {}, .errors = inputs.known, .loss = {}};
  losses::GroupErrors& errors = step.errors;
  const at::Tensor &target = step.inputs.target, &masks = inputs.masks;
  at::Tensor prediction_ref;
  if (!errors.error_ref.defined() && reference_) {
    const TimedPart reference(StepPart::kReference);
    prediction_ref = predict(*reference_, step.inputs);
    errors.error_ref = item_errors(prediction_ref, target, masks);
  }
  const TimedPart policy(StepPart::kPolicy);
  step.prediction = predict(policy_, step.inputs);
  errors.error = item_errors(step.prediction, target, masks);
  if (needs_.needs_drift && prediction_ref.defined()) {
    errors.drift = item_errors(step.prediction, prediction_ref.to(at::kFloat), masks);
  }
  if (needs_.needs_residual_dot) add_residual_products(step.prediction, target, masks, errors);
  step.kappa = options_.params.kappa;
  step.loss = objective_.compute(errors, options_.params, options_.loss);
  return step;
}

StepMeasurement TrainStep::measure(const EncodedBatch& batch, const at::Tensor& timesteps,
                                   const at::Tensor& error_ref) const {
  StepMeasurement measurement{.errors = known_of(batch), .output = {}};
  losses::GroupErrors& errors = measurement.errors;
  errors.error = policy_errors(batch, timesteps);
  errors.error_ref = error_ref;
  const auto& info = objective_.info;
  const bool errors_suffice =
      !info.needs_drift && !info.needs_residual_dot && info.latent_source == losses::LatentSource::kForwardNoise;
  if (errors_suffice) {
    measurement.output = objective_.compute(errors, options_.params);
  } else {
    measurement.output.metrics = losses::common_metrics(info, errors, options_.params);
  }
  return measurement;
}

at::Tensor TrainStep::draw_timesteps(const EncodedBatch& batch) const {
  std::vector<int64_t> timesteps;
  for (const GroupRef& group : batch.groups) {
    timesteps.push_back(options_.timesteps.draw({options_.seed, static_cast<uint64_t>(group.item), group.draw}));
  }
  return to_device(at::tensor(timesteps, at::kLong), batch.mean.device());
}

at::Tensor TrainStep::reference_errors(const EncodedBatch& batch, const at::Tensor& timesteps) const {
  at::NoGradGuard no_grad;
  const GroupInputs inputs = inputs_.make_forward(batch, timesteps, encode_prompts(batch));
  return item_errors(predict(*reference_, inputs), inputs.target, batch.masks);
}

at::Tensor TrainStep::policy_errors(const EncodedBatch& batch, const at::Tensor& timesteps) const {
  at::NoGradGuard no_grad;
  GroupInputs inputs = inputs_.make_forward(batch, timesteps, encode_prompts(batch));
  inputs.user_states = user_states(batch, /*dropout=*/0.0);
  return item_errors(predict(policy_, inputs), inputs.target, batch.masks);
}

// What the policy's own text encoders make of the prompts, and made of them at the start. Undefined without any.
BatchPrompts TrainStep::encode_prompts(const EncodedBatch& batch) const {
  if (!options_.text) return {};
  const bool has_item_prompts = batch.item_prompts.defined();
  const auto& texts = has_item_prompts ? batch.item_prompt_texts : batch.prompt_texts;
  const auto shaped = [&](const text::PromptStates& states) {
    if (!has_item_prompts) return states;
    return states.map([&](const at::Tensor& part) {
      return part.unflatten(0, {batch.size(), batch.items_per_group()});
    });
  };
  return {.start = reference_ ? shaped(options_.text->encode_start(texts)) : text::PromptStates{},
          .policy = shaped(options_.text->encode(texts))};
}

at::Tensor TrainStep::predict(unet::Denoiser& network, const GroupInputs& inputs) const {
  const at::ScalarType dtype = options_.dtype;
  unet::Conditioning conditioning = inputs.policy_conditioning(dtype);
  if (inputs.user_states.defined()) {
    conditioning.user_states = inputs.user_states.repeat_interleave(inputs.timesteps.size(1), 0);
  }
  return latents_of(network.forward(inputs.denoiser_latents(dtype), inputs.denoiser_timesteps(), conditioning), inputs);
}

at::Tensor TrainStep::predict(ReferencePolicy& reference, const GroupInputs& inputs) const {
  const at::ScalarType dtype = options_.dtype;
  return latents_of(
      reference.predict(inputs.denoiser_latents(dtype), inputs.denoiser_timesteps(), inputs.conditioning(dtype)),
      inputs);
}

// [B, k] means over C,H,W of the squared difference, weighted by masks where there are some: a mask m has the effect of
// sqrt(m) on both sides, and its mean is divided out.
at::Tensor TrainStep::item_errors(const at::Tensor& prediction, const at::Tensor& target,
                                  const at::Tensor& masks) const {
  const auto errors = [&](const at::Tensor& found, const at::Tensor& wanted) {
    return kernels::item_error(found.flatten(0, 1), wanted.flatten(0, 1)).view(found.sizes().slice(0, 2));
  };
  if (!masks.defined()) return errors(prediction, target);
  const at::Tensor root = masks.sqrt();
  return errors(prediction.to(at::kFloat) * root, target * root) / masks.mean({2, 3, 4}).clamp_min(kSmallestMaskMean);
}

// What the data says of a batch.
losses::GroupErrors TrainStep::known_of(const EncodedBatch& batch) const {
  losses::GroupErrors errors;
  errors.labels = batch.labels;
  errors.scores = batch.scores;
  errors.weights = batch.weights;
  errors.has_item_prompts = batch.item_prompts.defined();
  errors.is_masked = batch.masks.defined();
  if (needs_.needs_prompt_distance) errors.prompt_distance = prompt_distances(batch.prompts.encoder_hidden_states);
  return errors;
}

// [B, M, U] of the users who judged the groups, some draws' exchanged for the empty user's; undefined for a policy that
// knows no users.
at::Tensor TrainStep::user_states(const EncodedBatch& batch, double dropout) const {
  if (!options_.users) return {};
  std::vector<std::string> users = batch.users;
  for (size_t i = 0; i < users.size(); ++i) {
    const GroupRef& group = batch.groups[i];
    CounterRng rng({options_.seed, static_cast<uint64_t>(group.item), group.draw}, RandomPurpose::kOther);
    if (rng.uniform() < dropout) users[i] = nn::UserAdapter::kEmptyUser;
  }
  return options_.users->states(users);
}

// What the options draw or look up for each group.
void TrainStep::add_draws(const EncodedBatch& batch, const at::Tensor& timesteps, losses::GroupErrors& errors) const {
  if (options_.loss.margin_drop > 0) {
    std::vector<uint8_t> drops;
    for (const GroupRef& group : batch.groups) {
      const DrawKey key{options_.seed, static_cast<uint64_t>(group.item), group.draw};
      drops.push_back(CounterRng(key, RandomPurpose::kMarginDrop).uniform() < options_.loss.margin_drop);
    }
    errors.drop_margin = to_device(at::tensor(drops, at::kByte).to(at::kBool), batch.mean.device());
  }
  if (options_.loss.swap_empty_prompts) errors.swap = batch.is_caption_dropped;
  if (!options_.logit_weighting.is_none()) errors.error_scale = options_.logit_weighting.at(timesteps, schedule_);
  if (options_.loss_weighting.is_none()) return;
  const at::Tensor weights = options_.loss_weighting.at(timesteps, schedule_);
  errors.weights = errors.weights.defined() ? errors.weights * weights : weights;
}

}  // namespace prefusion::training
