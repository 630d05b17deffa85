#include "training/online/old_policy.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "training/ema.h"

namespace prefusion::training {

OldPolicy::OldPolicy(const Policy& policy) : policy_(policy) {
  for (const auto& [name, weight] : policy.trainable) {
    values_.push_back({"old." + name, weight.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true)});
  }
}

void OldPolicy::with_network(const std::function<void(unet::Denoiser&)>& use) {
  const at::NoGradGuard no_grad;
  const SwappedWeights swapped(policy_.trainable, values_);
  use(*policy_.denoiser);
}

void OldPolicy::follow(double decay) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < values_.size(); ++i) {
    values_[i].tensor.lerp_(policy_.trainable[i].tensor.detach().to(at::kFloat), 1 - decay);
  }
}

TensorMap OldPolicy::state() const {
  TensorMap state;
  for (const auto& [name, value] : values_) state.emplace(name, value);
  return state;
}

void OldPolicy::load_state(const TensorMap& state, const std::string& where) {
  const at::NoGradGuard no_grad;
  check_weights(values_, state, where);
  for (auto& [name, value] : values_) value.copy_(state.at(name));
}

}  // namespace prefusion::training
