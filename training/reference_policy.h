#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/weights.h"
#include "nn/lora.h"
#include "training/reference_spec.h"
#include "unet/denoiser.h"

namespace prefusion::training {

// What the policy is compared with. Predictions come without gradients and through the same precision path as the
// policy's, so that their difference is exactly zero while the weights are equal.
class ReferencePolicy {
 public:
  virtual ~ReferencePolicy() = default;

  // Calls `use` with a network that has the reference's weights, without autograd.
  virtual void with_network(const std::function<void(unet::Denoiser&)>& use) = 0;

  at::Tensor predict(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const unet::Conditioning& conditioning);

  // Called after optimizer step number `step` (from 1) with the policy's master weights: moving references follow.
  virtual void follow(int64_t /*step*/, const std::vector<NamedTensor>& /*weights*/) {}

  // What a checkpoint must hold so that the reference is the same after a restart; empty for one that does not move.
  virtual TensorMap state() const { return {}; }
  virtual void load_state(const TensorMap& /*state*/, const std::string& /*where*/) {}
};

// A second network whose weights stay as they are.
std::unique_ptr<ReferencePolicy> frozen_reference(std::shared_ptr<unet::Denoiser> denoiser);

// The policy network itself with its trained adapter switched off for the call. Other adapters of the network stay on;
// without one given (null) all LoRAs are switched off.
std::unique_ptr<ReferencePolicy> adapter_off_reference(std::shared_ptr<unet::Denoiser> policy,
                                                       std::shared_ptr<nn::LoraAdapter> adapter);

// The policy network with other values in its trained weights: those of the start at first, then what `spec` makes of
// them. Costs one fp32 copy of the trained weights (two when extrapolated), nothing of the frozen ones.
//   ema           "Linear-DPO", arXiv 2605.21123: the decay is applied as it is, from the first step on
//   refresh       hard every N steps as in online DPO (arXiv 2505.05470), or soft: TR-DPO (arXiv 2404.09656)
//   extrapolated  on the line from start to policy: between them for 0 < A < 1, on the far side of the start for A < 0
//   frozen        the start for ever
std::unique_ptr<ReferencePolicy> trained_weights_reference(std::shared_ptr<unet::Denoiser> policy,
                                                           std::vector<NamedTensor> trainable,
                                                           const ReferenceSpec& spec);

}  // namespace prefusion::training
