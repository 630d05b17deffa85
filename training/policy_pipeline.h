#pragma once

#include <memory>

#include "pipelines/text_to_image.h"
#include "training/align_options.h"

namespace prefusion::training {

// The network being trained as a picture generator, with VAE, text encoder (or the one given) and scheduler of --model.
pipelines::TextToImage policy_pipeline(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                                       at::ScalarType dtype, at::Device device,
                                       std::shared_ptr<text::PromptEncoder> prompt_encoder = nullptr);

// The same for pictures to train on: squares of --resolution where it is given. Usage error for one the model cannot
// make.
pipelines::TextToImage training_pipeline(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                                         at::ScalarType dtype, at::Device device);

}  // namespace prefusion::training
