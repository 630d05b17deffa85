#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "tools/bench_parts.h"
#include "unet/denoiser.h"

namespace prefusion::tools {

// Random weights for a network that has been made without any, then the dtype and the device that are asked for, as
// loading leaves them.
void randomise(torch::nn::Module& network, at::ScalarType dtype, at::Device device);

// The denoiser of --model, or one of its config with random weights, the same for the same seed.
std::shared_ptr<unet::Denoiser> open_bench_denoiser(const BenchOptions& options);

// A denoiser of --model on random input of the size that is asked for.
class DenoiserPass {
 public:
  // Usage error for a size that the model cannot take.
  explicit DenoiserPass(const BenchOptions& options);

  void forward() const;               // without gradients
  void forward_as_graph();            // the same, recorded the first time
  void forward_and_backward() const;  // for all weights
  // "1 x 64 x 64 latents"
  std::string shape_text() const;

  const std::shared_ptr<unet::Denoiser>& denoiser() const { return denoiser_; }
  const at::Tensor& noisy_latents() const { return noisy_latents_; }        // [B, C, h, w]
  const unet::Conditioning& conditioning() const { return conditioning_; }  // a row for each

 private:
  at::Tensor predict() const;

  std::shared_ptr<unet::Denoiser> denoiser_;
  std::shared_ptr<unet::Denoiser> graphed_;
  at::Tensor noisy_latents_, timesteps_;
  unet::Conditioning conditioning_;
};

}  // namespace prefusion::tools
