#include "training/own_samples.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/interrupt.h"
#include "core/step_clock.h"
#include "training/policy_pipeline.h"

namespace prefusion::training {
namespace {

at::Tensor rows(const at::Tensor& one, int64_t count) {
  return one.defined() ? one.expand({count, -1}) : one;
}

}  // namespace

bool samples_rejected(const losses::ObjectiveInfo& objective) {
  return std::ranges::any_of(objective.parameters, [](const auto& parameter) { return parameter.name == "rejected"; });
}

OwnSamples::OwnSamples(const AlignOptions& options, const Policy& policy, const EncodedData& data, at::ScalarType dtype,
                       at::Device device)
    : seed_(options.seed),
      dtype_(dtype),
      guidance_({.scale = options.online.guidance}),
      scaling_(data.scaling()),
      latent_shape_(data.latent_shape()),
      time_ids_(data.example_time_ids()) {
  pipelines::TextToImage pipeline = policy_pipeline(options, policy.denoiser, dtype, device);
  const int64_t factor = pipeline.components().autoencoder->scale_factor_px();
  const pipelines::ImageSize size{latent_shape_[1] * factor, latent_shape_[2] * factor};
  sampling_ = pipelines::make_policy(pipeline, {.num_inference_steps = options.online.sampling_steps,
                                                .noise = 0,
                                                .guidance = guidance_,
                                                .height_px = size.height_px,
                                                .width_px = size.width_px});
  empty_ = pipeline.encode({""}, {""}, guidance_, size);
}

at::Tensor OwnSamples::noise_of(const EncodedBatch& batch) const {
  std::vector<pipelines::KeyedRequest> requests;
  for (const GroupRef& group : batch.groups) {
    requests.push_back(
        {.prompt = "", .negative_prompt = "", .key = {seed_, static_cast<uint64_t>(group.item), group.draw}});
  }
  return pipelines::keyed_noise(requests, 0, latent_shape_);
}

pipelines::GuidedConditioning OwnSamples::conditioning(const EncodedBatch& batch) const {
  const int64_t count = batch.size();
  unet::Conditioning prompt{.encoder_hidden_states = batch.prompts.encoder_hidden_states.to(dtype_),
                            .encoder_mask = batch.prompts.encoder_mask};
  if (batch.prompts.pooled.defined()) prompt.pooled = batch.prompts.pooled.to(dtype_);
  prompt.time_ids = rows(empty_.prompt.time_ids, count);
  if (empty_.prompt.guidance.defined()) prompt.guidance = empty_.prompt.guidance.expand({count});
  if (!sampling_.guidance.is_active()) return {.prompt = prompt, .negative = {}};
  const at::Tensor first = at::zeros({count}, batch.mean.options().dtype(at::kLong));
  return {.prompt = prompt, .negative = unet::select_rows(empty_.negative, first)};
}

EncodedBatch OwnSamples::with_rejected(const EncodedBatch& batch, ReferencePolicy& opponent) const {
  const TimedPart sampling(StepPart::kSampling);
  const at::NoGradGuard no_grad;
  const pipelines::GuidedConditioning known = conditioning(batch);
  at::Tensor latents = noise_of(batch).to(batch.mean.device());
  opponent.with_network([&](unet::Denoiser& network) {
    for (const schedulers::SamplerStep& step : sampling_.sampler->steps()) {
      throw_if_interrupted();
      const auto at_time = [&](double time) { return sampling_.filled(time, latents.size(0), latents.device()); };
      latents =
          sampling_.step(network, latents, at_time(step.time), at_time(step.next_time), known, /*step_noise=*/0).mean;
    }
  });
  EncodedBatch pairs = batch;
  const at::Tensor rejected = (latents / scaling_.scale + scaling_.shift).unsqueeze(1);
  pairs.mean = at::cat({batch.mean, rejected}, 1);
  pairs.std = at::cat({batch.std, at::zeros_like(batch.std)}, 1);
  pairs.labels = at::tensor({1.0F, 0.0F}).to(batch.mean.device()).expand({batch.size(), 2}).contiguous();
  pairs.scores = at::Tensor();
  if (batch.time_ids.defined()) {
    const at::Tensor own = time_ids_.to(batch.time_ids.device(), batch.time_ids.scalar_type());
    pairs.time_ids = at::cat({batch.time_ids, own.expand({batch.size(), 1, -1})}, 1);
  }
  return pairs;
}

}  // namespace prefusion::training
