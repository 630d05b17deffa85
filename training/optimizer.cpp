#include "training/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace prefusion::training {
Optimizer::Optimizer(std::vector<NamedTensor> parameters) : parameters_(std::move(parameters)) {
  check_usage(!parameters_.empty(), "nothing to train: no parameter was selected");
  at::NoGradGuard no_grad;
  for (const auto& [name, parameter] : parameters_) {
    const bool is_half = parameter.scalar_type() != at::kFloat;
    has_masters_ |= is_half;
    masters_.push_back(is_half ? parameter.detach().to(at::kFloat) : parameter.detach());
  }
  step_counts_ = at::zeros({static_cast<int64_t>(parameters_.size())},
                           at::TensorOptions().dtype(at::kFloat).device(masters_.front().device()));
  counts_ = step_counts_.unbind();
}

void Optimizer::step(double lr, const kernels::StepGate& gate) {
  at::NoGradGuard no_grad;
  std::vector<size_t> present;
  std::vector<at::Tensor> counts;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].tensor.grad().defined()) continue;
    present.push_back(i);
    counts.push_back(counts_[i]);
  }
  if (present.empty()) return;
  if (gate.takes.defined()) {
    at::_foreach_add_(counts, gate.takes);
  } else {
    at::_foreach_add_(counts, 1);
  }
  move(present, lr, gate);
}

void Optimizer::round_masters() {
  if (!has_masters_) return;
  for (size_t i = 0; i < masters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].tensor;
    if (parameter.scalar_type() != at::kFloat) parameter.detach().copy_(masters_[i]);
  }
}

void Optimizer::zero_grad() {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> present;
  for (auto& [name, parameter] : parameters_) {
    if (!keeps_gradients_) {
      parameter.mutable_grad().reset();
    } else if (parameter.grad().defined()) {
      present.push_back(parameter.grad());
    }
  }
  if (!present.empty()) at::_foreach_zero_(present);
}

at::Tensor Optimizer::grad_norm() const {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> present;
  for (const auto& [name, parameter] : parameters_) {
    if (parameter.grad().defined()) present.push_back(parameter.grad());
  }
  if (present.empty()) return at::zeros({}, masters_.front().options());
  std::vector<at::Tensor> norms = at::_foreach_norm(present, 2, at::kFloat);
  return at::linalg_vector_norm(at::stack(norms));
}

at::Tensor clip_factor(const at::Tensor& norm, double max_norm) {
  constexpr double kEps = 1e-6;
  return max_norm > 0 ? (max_norm / (norm + kEps)).clamp_max(1.0) : at::Tensor();
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
    : Optimizer(std::move(parameters)), options_(options) {
  for (const at::Tensor& master : masters_) {
    exp_avg_.push_back(at::zeros_like(master));
    exp_avg_sq_.push_back(at::zeros_like(master));
  }
}

void AdamW::move(const std::vector<size_t>& present, double lr, const kernels::StepGate& gate) {
  AdamWOptions settings = options_;
  settings.lr = lr;
  std::vector<kernels::AdamWTensors> tensors;
  for (const size_t i : present) {
    const at::Tensor& parameter = parameters_[i].tensor;
    tensors.push_back({.parameter = parameter.scalar_type() == at::kFloat ? at::Tensor() : parameter.detach(),
                       .master = masters_[i],
                       .gradient = parameter.grad(),
                       .exp_avg = exp_avg_[i],
                       .exp_avg_sq = exp_avg_sq_[i],
                       .count = counts_[i]});
  }
  kernels::adamw_step(std::move(tensors), settings, gate);
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
