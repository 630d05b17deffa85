#include "pipelines/backprop_sampling.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/interrupt.h"
#include "nn/activation_checkpoint.h"

namespace prefusion::pipelines {
namespace {

// The guided prediction, kept as a recipe.
at::Tensor predict_recomputed(unet::Denoiser& denoiser, const at::Tensor& latents, const at::Tensor& timesteps,
                              const GuidedConditioning& conditioning, const GuidanceOptions& guidance) {
  const auto predict = [&denoiser, timesteps, conditioning, guidance](const std::vector<at::Tensor>& inputs) {
    return std::vector<at::Tensor>{predict_guided(denoiser, inputs[0], timesteps, conditioning, guidance)};
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
  const schedulers::StochasticDdim sampler = pipeline.stochastic_ddim();
  const std::vector<schedulers::DdimStep> steps = sampler.steps(options.num_inference_steps);
  check_steps(options.gradient_steps, steps.size());
  const ImageSize size = pipeline.image_size({.height_px = options.height_px, .width_px = options.width_px});
  const GuidedConditioning conditioning = encode_requests(pipeline, requests, options.guidance, size);
  const at::Device device = conditioning.prompt.encoder_hidden_states.device();
  at::Tensor latents = keyed_noise(requests, 0, pipeline.latent_shape(size)).to(device);

  const auto& chosen = options.gradient_steps;
  for (size_t i = 0; i < steps.size(); ++i) {
    throw_if_interrupted();
    const auto filled = [&](int64_t timestep) {
      return at::full({latents.size(0)}, timestep, latents.options().dtype(at::kLong));
    };
    const at::Tensor timesteps = filled(steps[i].timestep);
    const bool keeps_gradient = std::find(chosen.begin(), chosen.end(), static_cast<int64_t>(i)) != chosen.end();
    at::Tensor prediction;
    {
      const at::AutoGradMode mode(keeps_gradient && at::GradMode::is_enabled());
      prediction = predict_recomputed(denoiser, latents.detach(), timesteps, conditioning, options.guidance);
    }
    latents = sampler.step(prediction, latents, timesteps, filled(steps[i].previous_timestep), /*eta=*/0).mean;
  }
  return latents;
}

}  // namespace prefusion::pipelines
