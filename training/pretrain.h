#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace prefusion::training {

// Plain denoising training of a small model from its configs: how the bundled model was made.
struct PretrainOptions {
  // A diffusers-layout folder. Only configs are needed (model_index.json, unet/, vae/, text_encoder/, scheduler/);
  // components that have weights start from them, the others from random initialisation. Without a tokenizer folder a
  // word tokenizer over the captions' vocabulary is made.
  std::filesystem::path model;
  std::filesystem::path output;  // the trained model, in the same layout
  uint64_t seed = 0;

  at::ScalarType stored_dtype = at::kFloat;  // of the written weights; training is in fp32

  int64_t num_scenes = 16000;  // distinct captioned scenes, drawn once and kept as latents

  int64_t vae_steps = 1500;  // 0 keeps the VAE's weights
  int64_t vae_batch_size = 16;
  double vae_lr = 2e-3;  // cosine to zero

  int64_t steps = 6000;
  int64_t batch_size = 32;
  double lr = 1e-3;  // cosine to zero
  int64_t warmup = 100;
  double weight_decay = 1e-2;
  double max_grad_norm = 1.0;
  double ema_decay = 0.999;
  double empty_prompt_rate = 0.1;
  double snr_gamma = 5.0;  // min-SNR weighting (arXiv 2303.09556); 0 for none

  int64_t log_every = 50;
  int64_t save_every = 500;
  int64_t stop_after = 0;  // end with a checkpoint after this step of the schedule, to go on with resume; 0: never
  bool resume = false;
  bool progress = true;
};

// Trains VAE, then denoiser and text encoder together, and writes the averaged weights to `output`. Deterministic on
// one machine for a seed. Input error for a folder without the configs; run error when the loss is not finite.
void pretrain(const PretrainOptions& options, at::Device device);

}  // namespace prefusion::training
