#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "nn/lora.h"
#include "unet/denoiser.h"

namespace prefusion::training {

// What the policy is compared with. Predictions come without gradients and through the same precision path as the
// policy's, so that their difference is exactly zero while the weights are equal.
class ReferencePolicy {
 public:
  virtual ~ReferencePolicy() = default;
  virtual at::Tensor predict(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                             const unet::Conditioning& conditioning) = 0;
};

// A second network whose weights stay as they are.
std::unique_ptr<ReferencePolicy> frozen_reference(std::shared_ptr<unet::Denoiser> denoiser);

// The policy network itself with its trained adapter switched off for the call. Other adapters of the network (one the
// run started from) stay on.
std::unique_ptr<ReferencePolicy> adapter_off_reference(std::shared_ptr<unet::Denoiser> policy,
                                                       std::shared_ptr<nn::LoraAdapter> adapter);

}  // namespace prefusion::training
