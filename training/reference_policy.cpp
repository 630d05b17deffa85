#include "training/reference_policy.h"

#include <ATen/core/grad_mode.h>

#include "nn/lora.h"

namespace prefusion::training {
namespace {

class FrozenReference : public ReferencePolicy {
 public:
  explicit FrozenReference(std::shared_ptr<unet::Denoiser> denoiser) : denoiser_(std::move(denoiser)) {
    for (auto& parameter : denoiser_->parameters()) parameter.set_requires_grad(false);
  }
  at::Tensor predict(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const unet::Conditioning& conditioning) override {
    at::NoGradGuard no_grad;
    return denoiser_->forward(noisy_latents, timesteps, conditioning);
  }

 private:
  std::shared_ptr<unet::Denoiser> denoiser_;
};

class AdapterOffReference : public ReferencePolicy {
 public:
  AdapterOffReference(std::shared_ptr<unet::Denoiser> policy, std::shared_ptr<nn::LoraAdapter> adapter)
      : policy_(std::move(policy)), adapter_(std::move(adapter)) {}
  at::Tensor predict(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const unet::Conditioning& conditioning) override {
    at::NoGradGuard no_grad;
    const nn::AdapterOff off(*adapter_);
    return policy_->forward(noisy_latents, timesteps, conditioning);
  }

 private:
  std::shared_ptr<unet::Denoiser> policy_;
  std::shared_ptr<nn::LoraAdapter> adapter_;
};

}  // namespace

std::unique_ptr<ReferencePolicy> frozen_reference(std::shared_ptr<unet::Denoiser> denoiser) {
  return std::make_unique<FrozenReference>(std::move(denoiser));
}

std::unique_ptr<ReferencePolicy> adapter_off_reference(std::shared_ptr<unet::Denoiser> policy,
                                                       std::shared_ptr<nn::LoraAdapter> adapter) {
  return std::make_unique<AdapterOffReference>(std::move(policy), std::move(adapter));
}

}  // namespace prefusion::training
