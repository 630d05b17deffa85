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
  void with_network(const std::function<void(unet::Denoiser&)>& use) override {
    at::NoGradGuard no_grad;
    use(*denoiser_);
  }

 private:
  std::shared_ptr<unet::Denoiser> denoiser_;
};

class AdapterOffReference : public ReferencePolicy {
 public:
  AdapterOffReference(std::shared_ptr<unet::Denoiser> policy, std::shared_ptr<nn::LoraAdapter> adapter)
      : policy_(std::move(policy)), adapter_(std::move(adapter)) {}
  void with_network(const std::function<void(unet::Denoiser&)>& use) override {
    at::NoGradGuard no_grad;
    const nn::AdapterOff off = adapter_ ? nn::AdapterOff(*adapter_) : nn::AdapterOff(*policy_);
    use(*policy_);
  }

 private:
  std::shared_ptr<unet::Denoiser> policy_;
  std::shared_ptr<nn::LoraAdapter> adapter_;
};

}  // namespace

at::Tensor ReferencePolicy::predict(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                                    const unet::Conditioning& conditioning) {
  at::Tensor prediction;
  with_network([&](unet::Denoiser& network) { prediction = network.forward(noisy_latents, timesteps, conditioning); });
  return prediction;
}

std::unique_ptr<ReferencePolicy> frozen_reference(std::shared_ptr<unet::Denoiser> denoiser) {
  return std::make_unique<FrozenReference>(std::move(denoiser));
}

std::unique_ptr<ReferencePolicy> adapter_off_reference(std::shared_ptr<unet::Denoiser> policy,
                                                       std::shared_ptr<nn::LoraAdapter> adapter) {
  return std::make_unique<AdapterOffReference>(std::move(policy), std::move(adapter));
}

}  // namespace prefusion::training
