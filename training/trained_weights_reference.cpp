#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "training/ema.h"
#include "training/reference_policy.h"

namespace prefusion::training {
namespace {

std::vector<NamedTensor> fp32_copy(const std::vector<NamedTensor>& weights) {
  std::vector<NamedTensor> copy;
  for (const auto& [name, weight] : weights) copy.push_back({name, weight.detach().to(at::kFloat, false, true)});
  return copy;
}

class TrainedWeightsReference : public ReferencePolicy {
 public:
  TrainedWeightsReference(std::shared_ptr<unet::Denoiser> policy, std::vector<NamedTensor> trainable,
                          const ReferenceSpec& spec)
      : policy_(std::move(policy)), trainable_(std::move(trainable)), spec_(spec), values_(fp32_copy(trainable_)) {
    if (spec_.kind == ReferenceKind::kExtrapolated) start_ = fp32_copy(trainable_);
  }

  void with_network(const std::function<void(unet::Denoiser&)>& use) override {
    at::NoGradGuard no_grad;
    const SwappedWeights swapped(trainable_, values_);
    use(*policy_);
  }

  void follow(int64_t step, const std::vector<NamedTensor>& weights) override {
    at::NoGradGuard no_grad;
    switch (spec_.kind) {
      case ReferenceKind::kEma: move_towards(weights, 1.0 - spec_.decay); break;
      case ReferenceKind::kRefresh:
        if (step % spec_.every == 0) move_towards(weights, spec_.mix);
        break;
      case ReferenceKind::kExtrapolated:
        for (size_t i = 0; i < values_.size(); ++i) {
          at::Tensor value = values_[i].tensor;
          value.copy_(weights[i].tensor).sub_(start_[i].tensor).mul_(spec_.factor).add_(start_[i].tensor);
        }
        break;
      default: break;
    }
  }

  TensorMap state() const override {
    TensorMap state;
    if (!spec_.moves()) return state;
    for (const auto& [name, value] : values_) state.emplace("reference." + name, value);
    return state;
  }

  void load_state(const TensorMap& source, const std::string& where) override {
    at::NoGradGuard no_grad;
    std::vector<NamedTensor> destination;
    for (const auto& [name, value] : state()) destination.push_back({name, value});
    check_weights(destination, source, where);
    for (auto& [name, value] : destination) value.copy_(source.at(name));
  }

 private:
  // lerp_ is exact at both ends: a hard refresh makes the values equal.
  void move_towards(const std::vector<NamedTensor>& weights, double share) {
    for (size_t i = 0; i < values_.size(); ++i) {
      at::Tensor value = values_[i].tensor;
      value.lerp_(weights[i].tensor.detach().to(at::kFloat), share);
    }
  }

  std::shared_ptr<unet::Denoiser> policy_;
  std::vector<NamedTensor> trainable_;
  ReferenceSpec spec_;
  std::vector<NamedTensor> values_;
  std::vector<NamedTensor> start_;
};

}  // namespace

std::unique_ptr<ReferencePolicy> trained_weights_reference(std::shared_ptr<unet::Denoiser> policy,
                                                           std::vector<NamedTensor> trainable,
                                                           const ReferenceSpec& spec) {
  return std::make_unique<TrainedWeightsReference>(std::move(policy), std::move(trainable), spec);
}

}  // namespace prefusion::training
