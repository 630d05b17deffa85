#pragma once

#include <ATen/core/Tensor.h>

#include "training/pretrain.h"

namespace prefusion::vae {
class AutoencoderKL;
}

namespace prefusion::training {

// Trains the autoencoder on freshly drawn scenes: mean squared error + 0.3 mean absolute error + 1e-6 KL to N(0, 1).
void pretrain_vae(vae::AutoencoderKL& vae, const PretrainOptions& options, at::Device device);

// 1 / standard deviation of the unscaled latents over some scenes: what scaling_factor is for.
double measure_scaling_factor(vae::AutoencoderKL& vae, const PretrainOptions& options, at::Device device);

}  // namespace prefusion::training
