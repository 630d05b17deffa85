#include "training/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace prefusion::training {
namespace {

at::Device device_of(const std::vector<NamedTensor>& parameters) {
  return parameters.empty() ? at::Device(at::kCPU) : parameters.front().tensor.device();
}

}  // namespace

Optimizer::Optimizer(std::vector<NamedTensor> parameters, at::Device counts_device)
    : parameters_(std::move(parameters)) {
  check_usage(!parameters_.empty(), "nothing to train: no parameter was selected");
  at::NoGradGuard no_grad;
  for (const auto& [name, parameter] : parameters_) {
    const bool is_half = parameter.scalar_type() != at::kFloat;
    has_masters_ |= is_half;
    masters_.push_back(is_half ? parameter.detach().to(at::kFloat) : parameter.detach());
  }
  step_counts_ = at::zeros({static_cast<int64_t>(parameters_.size())},
                           at::TensorOptions().dtype(at::kFloat).device(counts_device));
}

void Optimizer::round_masters() {
  if (!has_masters_) return;
  for (size_t i = 0; i < masters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].tensor;
    if (parameter.scalar_type() != at::kFloat) parameter.detach().copy_(masters_[i]);
  }
}

void Optimizer::zero_grad() {
  for (auto& [name, parameter] : parameters_) parameter.mutable_grad().reset();
}

at::Tensor Optimizer::grad_norm() const {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> present;
  for (const auto& [name, parameter] : parameters_) {
    if (parameter.grad().defined()) present.push_back(parameter.grad());
  }
  if (present.empty()) return at::zeros({}, at::kFloat);
  std::vector<at::Tensor> norms = at::_foreach_norm(present, 2, at::kFloat);
  return at::linalg_vector_norm(at::stack(norms));
}

void Optimizer::clip_gradients(const at::Tensor& norm, double max_norm) {
  at::NoGradGuard no_grad;
  const at::Tensor factor = (max_norm / (norm + kNormEps)).clamp_max(1.0);
  for (auto& [name, parameter] : parameters_) {
    if (parameter.grad().defined()) parameter.mutable_grad().mul_(factor);
  }
}

TensorMap Optimizer::state() const {
  TensorMap state = memory();
  for (size_t i = 0; i < parameters_.size(); ++i) state["master." + parameters_[i].name] = masters_[i];
  state["step_counts"] = step_counts_;
  return state;
}

void Optimizer::load_state(const TensorMap& source, const std::string& where) {
  at::NoGradGuard no_grad;
  std::vector<NamedTensor> destination;
  for (const auto& [name, tensor] : state()) destination.push_back({name, tensor});
  check_weights(destination, source, where);
  for (auto& [name, tensor] : destination) tensor.copy_(source.at(name));
  round_masters();
}

std::vector<NamedTensor> Optimizer::master_weights() const {
  std::vector<NamedTensor> weights;
  for (size_t i = 0; i < parameters_.size(); ++i) weights.push_back({parameters_[i].name, masters_[i]});
  return weights;
}

size_t Optimizer::state_bytes() const {
  size_t bytes = 0;
  for (const auto& [name, tensor] : memory()) bytes += tensor.nbytes();
  for (size_t i = 0; i < masters_.size(); ++i) {
    if (parameters_[i].tensor.scalar_type() != at::kFloat) bytes += masters_[i].nbytes();
  }
  return bytes;
}

AdamW::AdamW(std::vector<NamedTensor> parameters, const AdamWOptions& options)
    : Optimizer(parameters, device_of(parameters)), options_(options) {
  for (const at::Tensor& master : masters_) {
    exp_avg_.push_back(at::zeros_like(master));
    exp_avg_sq_.push_back(at::zeros_like(master));
  }
  steps_ = step_counts_.unbind();
}

void AdamW::step(double lr) {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> weights, gradients, exp_avg, exp_avg_sq, steps;
  AdamWOptions settings = options_;
  settings.lr = lr;
  const auto has_gradient = [&](size_t i) { return parameters_[i].tensor.grad().defined(); };
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (has_gradient(i)) steps.push_back(steps_[i]);
  }
  if (steps.empty()) return;
  at::_foreach_add_(steps, 1);
  steps.clear();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!has_gradient(i)) continue;
    const at::Tensor& parameter = parameters_[i].tensor;
    if (parameter.scalar_type() != at::kFloat) {
      kernels::adamw_step(parameter, masters_[i], parameter.grad(), exp_avg_[i], exp_avg_sq_[i], steps_[i], settings);
      continue;
    }
    weights.push_back(masters_[i]);
    gradients.push_back(parameter.grad());
    exp_avg.push_back(exp_avg_[i]);
    exp_avg_sq.push_back(exp_avg_sq_[i]);
    steps.push_back(steps_[i]);
  }
  if (weights.empty()) return;
  at::_fused_adamw_(weights, gradients, exp_avg, exp_avg_sq, {}, steps, lr, options_.beta1, options_.beta2,
                    options_.weight_decay, options_.eps, /*amsgrad=*/false, /*maximize=*/false);
}

TensorMap AdamW::memory() const {
  TensorMap memory;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    memory["exp_avg." + parameters_[i].name] = exp_avg_[i];
    memory["exp_avg_sq." + parameters_[i].name] = exp_avg_sq_[i];
  }
  return memory;
}

}  // namespace prefusion::training
