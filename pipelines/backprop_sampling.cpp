#include "pipelines/backprop_sampling.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/interrupt.h"
#include "nn/activation_checkpoint.h"
#include "pipelines/trajectory.h"

namespace prefusion::pipelines {
namespace {

// The guided prediction, kept as a recipe.
at::Tensor predict_recomputed(unet::Denoiser& denoiser, const SamplingPolicy& policy, const at::Tensor& latents,
                              const at::Tensor& times, const GuidedConditioning& conditioning) {
  const auto predict = [&denoiser, policy, times, conditioning](const std::vector<at::Tensor>& inputs) {
    return std::vector<at::Tensor>{policy.predict(denoiser, inputs[0], times, conditioning)};
  };
  return nn::activation_checkpoint(predict, {latents}, nn::trainable_tensors(denoiser)).front();
}

void check_steps(const std::vector<int64_t>& gradient_steps, size_t count) {
  for (const int64_t step : gradient_steps) {
    check_usage(step >= 0 && static_cast<size_t>(step) < count, "there is no step ", step, " of ", count,
                " sampling steps to take a gradient of");
  }
}

}  // namespace

std::vector<int64_t> evenly_spaced_steps(int64_t num_inference_steps, int64_t every, const DrawKey& key) {
  check_usage(every >= 1 && every <= num_inference_steps, "gradients of every ", every, "th of ", num_inference_steps,
              " sampling steps: expected a number between 1 and the number of steps");
  std::vector<int64_t> steps;
  for (int64_t step = CounterRng(key, RandomPurpose::kSample).below(every); step < num_inference_steps; step += every) {
    steps.push_back(step);
  }
  return steps;
}

at::Tensor sample_with_gradient(TextToImage& pipeline, std::span<const KeyedRequest> requests,
                                const BackpropOptions& options) {
  unet::Denoiser& denoiser = *pipeline.components().denoiser;
  const SamplingPolicy policy = make_policy(pipeline, {.num_inference_steps = options.num_inference_steps,
                                                       .noise = 0,
                                                       .guidance = options.guidance,
                                                       .height_px = options.height_px,
                                                       .width_px = options.width_px});
  const std::vector<schedulers::SamplerStep>& steps = policy.sampler->steps();
  check_steps(options.gradient_steps, steps.size());
  const ImageSize size = pipeline.image_size({.height_px = options.height_px, .width_px = options.width_px});
  const GuidedConditioning conditioning = encode_requests(pipeline, requests, options.guidance, size);
  const at::Device device = conditioning.prompt.encoder_hidden_states.device();
  at::Tensor latents = keyed_noise(requests, 0, pipeline.latent_shape(size)).to(device);

  const auto& chosen = options.gradient_steps;
  for (size_t i = 0; i < steps.size(); ++i) {
    throw_if_interrupted();
    const at::Tensor times = policy.filled(steps[i].time, latents.size(0), device);
    const at::Tensor next_times = policy.filled(steps[i].next_time, latents.size(0), device);
    const bool keeps_gradient = std::find(chosen.begin(), chosen.end(), static_cast<int64_t>(i)) != chosen.end();
    at::Tensor prediction;
    {
      const at::AutoGradMode mode(keeps_gradient && at::GradMode::is_enabled());
      prediction = predict_recomputed(denoiser, policy, latents.detach(), times, conditioning);
    }
    latents = policy.sampler->step(prediction, latents, times, next_times, /*noise=*/0).mean;
  }
  return latents;
}

}  // namespace prefusion::pipelines
