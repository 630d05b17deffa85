#include "training/policy_pipeline.h"

#include "core/error.h"
#include "pipelines/load_prompt_encoder.h"
#include "schedulers/scheduler_config.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::training {

pipelines::TextToImage policy_pipeline(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                                       at::ScalarType dtype, at::Device device) {
  const pipelines::ModelIndex index = pipelines::read_model_index(options.model);
  pipelines::TextToImage pipeline({
      .family = index.family,
      .denoiser = std::move(denoiser),
      .autoencoder = vae::load_autoencoder(options.model / "vae", dtype, device),
      .prompt_encoder = pipelines::load_prompt_encoder(options.model, index, dtype, device),
      .scheduler_config = schedulers::read_scheduler_config(options.model),
  });
  check_input(!pipeline.is_inpainting(), options.model.string(),
              ": is an inpainting model; only text-to-image models can be aligned");
  return pipeline;
}

}  // namespace prefusion::training
