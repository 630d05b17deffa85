#include "pipelines/sampling_start.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

namespace prefusion::pipelines {
namespace {

// One draw from the posterior of a picture for every item.
at::Tensor sample_latents(const vae::AutoencoderKL& autoencoder, const vae::Posterior& posterior,
                          const std::vector<at::Generator>& generators, const at::Tensor& like) {
  const auto batch = static_cast<int64_t>(generators.size());
  const at::Tensor mean = posterior.mean.expand({batch, -1, -1, -1});
  return autoencoder.to_latents(mean + posterior.std * draw_noise(generators, mean)).to(like);
}

void check_start(const TextToImage& pipeline, const GenerateOptions& options) {
  const StartPicture& start = options.start;
  const bool has_mask = start.mask.defined();
  check_usage(!pipeline.is_inpainting() || has_mask, "the denoiser takes ",
              pipeline.components().denoiser->info().in_channels,
              " channels: it is an inpainting model, which needs a picture and a mask "
              "(--init-image FILE --mask-image FILE)");
  if (!start.pixel_values.defined()) {
    check_usage(!pipeline.components().tells_aesthetic_score,
                "this model is a refiner: it needs a picture to go on from (--init-image FILE)");
    check_usage(!has_mask, "a mask needs the picture it belongs to (--init-image)");
    return;
  }
  check_usage(start.strength > 0 && start.strength <= 1, "--strength must be above 0 and at most 1, found ",
              start.strength);
  const ImageSize size = pipeline.image_size(options);
  const std::vector<int64_t> expected = {1, 3, size.height_px, size.width_px};
  check_usage(start.pixel_values.sizes() == expected, "the start picture must be ", shape_text(expected), ", found ",
              shape_text(start.pixel_values.sizes()));
  check_usage(!has_mask || start.mask.sizes() == at::IntArrayRef({1, 1, size.height_px, size.width_px}),
              "the mask must have the size of the start picture, found ", shape_text(start.mask.sizes()));
}

// What an inpainting denoiser is told beside the noisy latents: the mask at their size and the masked picture or, in
// FLUX.1 Fill, the masked picture and every pixel of the mask. `mask` is [1, 1, H, W], `latent_mask` [1, 1, h, w].
at::Tensor told_of_mask(const TextToImage& pipeline, const at::Tensor& masked_latents, const at::Tensor& mask,
                        const at::Tensor& latent_mask) {
  const auto rows = [&](const at::Tensor& x) {
    return x.to(masked_latents).expand({masked_latents.size(0), -1, -1, -1});
  };
  if (pipeline.components().family != ModelFamily::kFlux) return at::cat({rows(latent_mask), masked_latents}, 1);
  const at::Tensor pixels = at::pixel_unshuffle(mask, pipeline.components().autoencoder->scale_factor_px());
  return at::cat({masked_latents, rows(pixels)}, 1);
}

}  // namespace

at::Tensor draw_noise(const std::vector<at::Generator>& generators, const at::Tensor& like) {
  std::vector<int64_t> shape = like.sizes().vec();
  shape[0] = 1;
  std::vector<at::Tensor> items;
  for (const at::Generator& generator : generators) items.push_back(at::randn(shape, generator, at::kFloat));
  return at::cat(items).to(like.device(), like.scalar_type());
}

void SamplingStart::keep_items(const at::Tensor& items) {
  for (at::Tensor* part : {&latents, &picture_latents, &noise, &added_channels}) {
    if (part->defined()) *part = part->index_select(0, items);
  }
}

// The products are rounded as Python rounds them: 0.6 of 5 steps is 3, 0.29 of 100 is 28.
int64_t skipped_steps(ModelFamily family, int64_t num_inference_steps, double strength) {
  const auto steps = static_cast<double>(num_inference_steps);
  const double kept = std::min(steps * strength, steps);
  const bool rounds_skipped = family == ModelFamily::kStableDiffusion3 || family == ModelFamily::kFlux;
  return rounds_skipped ? static_cast<int64_t>(steps - kept) : num_inference_steps - static_cast<int64_t>(kept);
}

SamplingStart start_sampling(const TextToImage& pipeline, const schedulers::Scheduler& scheduler,
                             const GenerateOptions& options, const std::vector<at::Generator>& generators,
                             const at::Tensor& like) {
  check_start(pipeline, options);
  const StartPicture& start = options.start;
  SamplingStart result;
  if (!start.pixel_values.defined()) {
    result.latents = draw_noise(generators, like) * scheduler.init_noise_sigma();
    return result;
  }
  const int64_t skipped = skipped_steps(pipeline.components().family, options.num_inference_steps, start.strength);
  check_usage(skipped < options.num_inference_steps, "--strength ", start.strength, " leaves none of ",
              options.num_inference_steps, " steps; it must be at least 1 / steps");
  result.first_call = static_cast<size_t>(skipped) * scheduler.calls_per_step();

  vae::AutoencoderKL& autoencoder = *pipeline.components().autoencoder;
  const at::Tensor pixel_values = start.pixel_values.to(like.device());
  const bool has_mask = start.mask.defined();
  // With a mask full strength means pure noise, but for FLUX; else the picture stays as faint as the schedule's end
  // makes it.
  const bool is_pure_noise = has_mask && start.strength == 1.0 && pipeline.components().family != ModelFamily::kFlux;
  at::Tensor picture;
  if (!is_pure_noise || !pipeline.is_inpainting()) {
    picture = sample_latents(autoencoder, autoencoder.encode(pixel_values), generators, like);
  }
  const at::Tensor noise = draw_noise(generators, like);
  result.latents = is_pure_noise ? noise * scheduler.init_noise_sigma()
                                 : scheduler.add_noise(picture, noise, result.first_call).to(like.scalar_type());
  if (!has_mask) return result;

  const at::Tensor mask = start.mask.to(like.device());
  result.mask = at::upsample_nearest2d(mask, {like.size(2), like.size(3)}).to(like.scalar_type());
  if (!pipeline.is_inpainting()) {
    result.picture_latents = picture;
    result.noise = noise;
    draw_noise(generators, like);  // diffusers encodes the masked picture for ordinary models too, and drops it
    return result;
  }
  const at::Tensor masked = pixel_values * (mask < 0.5);
  const at::Tensor masked_latents = sample_latents(autoencoder, autoencoder.encode(masked), generators, like);
  result.added_channels = told_of_mask(pipeline, masked_latents, mask, result.mask);
  return result;
}

}  // namespace prefusion::pipelines
