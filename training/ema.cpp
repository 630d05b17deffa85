#include "training/ema.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace prefusion::training {

Ema::Ema(const std::vector<NamedTensor>& weights, double decay) : decay_(decay) {
  for (const auto& [name, weight] : weights) averages_.push_back({name, weight.detach().to(at::kFloat, false, true)});
  const at::Device device = averages_.empty() ? at::Device(at::kCPU) : averages_.front().tensor.device();
  num_updates_ = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(device));
}

void Ema::update(const std::vector<NamedTensor>& weights, const at::Tensor& takes) {
  at::NoGradGuard no_grad;
  const at::Tensor updates = num_updates_.to(at::kDouble);
  at::Tensor share = 1.0 - ((updates + 1.0) / (updates + 10.0)).clamp_max(decay_);
  if (takes.defined()) share = share * takes;
  share = share.to(at::kFloat);
  for (size_t i = 0; i < averages_.size(); ++i) {
    averages_[i].tensor.lerp_(weights[i].tensor.detach().to(at::kFloat), share);
  }
  num_updates_.add_(takes.defined() ? takes.to(at::kLong) : at::ones_like(num_updates_));
}

TensorMap Ema::state() const {
  TensorMap state{{"num_updates", num_updates_}};
  for (const auto& [name, average] : averages_) state.emplace("average." + name, average);
  return state;
}

void Ema::load_state(const TensorMap& source, const std::string& where) {
  at::NoGradGuard no_grad;
  std::vector<NamedTensor> destination;
  for (const auto& [name, tensor] : state()) destination.push_back({name, tensor});
  check_weights(destination, source, where);
  for (auto& [name, tensor] : destination) tensor.copy_(source.at(name));
}

SwappedWeights::SwappedWeights(const std::vector<NamedTensor>& parameters, const std::vector<NamedTensor>& values)
    : parameters_(parameters) {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor parameter = parameters_[i].tensor;
    saved_.push_back(parameter.detach().clone());
    parameter.detach().copy_(values[i].tensor);
  }
}

SwappedWeights::~SwappedWeights() {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) parameters_[i].tensor.detach().copy_(saved_[i]);
}

}  // namespace prefusion::training
