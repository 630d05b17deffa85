#include "training/policy_pipeline.h"

#include "schedulers/scheduler_config.h"
#include "text/prompt_encoder.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::training {

pipelines::TextToImage policy_pipeline(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                                       at::ScalarType dtype, at::Device device) {
  return pipelines::TextToImage({
      .denoiser = std::move(denoiser),
      .autoencoder = vae::load_autoencoder(options.model / "vae", dtype, device),
      .prompt_encoder = std::make_shared<text::PromptEncoder>(text::PromptEncoder::load(options.model, dtype, device)),
      .scheduler_config = schedulers::read_scheduler_config(options.model),
  });
}

}  // namespace prefusion::training
