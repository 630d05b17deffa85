#include "training/policy_pipeline.h"

#include "core/error.h"
#include "pipelines/load_prompt_encoder.h"
#include "schedulers/scheduler_config.h"
#include "training/prompt_options.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::training {
namespace {

pipelines::TextToImage load_pipeline(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                                     at::ScalarType dtype, at::Device device,
                                     std::shared_ptr<text::PromptEncoder> prompt_encoder, pipelines::ImageSize size) {
  const pipelines::ModelIndex index = pipelines::read_model_index(options.model);
  if (!prompt_encoder) {
    prompt_encoder = pipelines::load_prompt_encoder(options.model, index, dtype, device, prompt_options(options));
  }
  pipelines::TextToImage pipeline({
      .family = index.family,
      .denoiser = std::move(denoiser),
      .autoencoder = vae::load_autoencoder(options.model / "vae", dtype, device),
      .prompt_encoder = std::move(prompt_encoder),
      .scheduler_config = schedulers::read_scheduler_config(options.model),
      .default_size = size,
  });
  check_input(!pipeline.is_inpainting(), options.model.string(),
              ": is an inpainting model; only text-to-image models can be aligned");
  return pipeline;
}

}  // namespace

pipelines::TextToImage policy_pipeline(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                                       at::ScalarType dtype, at::Device device,
                                       std::shared_ptr<text::PromptEncoder> prompt_encoder) {
  return load_pipeline(options, std::move(denoiser), dtype, device, std::move(prompt_encoder), {});
}

pipelines::TextToImage training_pipeline(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                                         at::ScalarType dtype, at::Device device) {
  const int64_t side = options.resolution;
  pipelines::TextToImage pipeline =
      load_pipeline(options, std::move(denoiser), dtype, device, /*prompt_encoder=*/{}, {side, side});
  const int64_t unit = pipeline.size_unit_px();
  check_usage(side % unit == 0, "--resolution ", side, " must be a multiple of ", unit, " pixels for this model");
  return pipeline;
}

}  // namespace prefusion::training
