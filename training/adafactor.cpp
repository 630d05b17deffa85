#include "training/adafactor.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace prefusion::training {
namespace {

at::Tensor root_mean_square(const at::Tensor& values) {
  return at::linalg_vector_norm(values) / std::sqrt(static_cast<double>(values.numel()));
}

}  // namespace

Adafactor::Adafactor(std::vector<NamedTensor> parameters, const AdafactorOptions& options)
    : Optimizer(std::move(parameters)), options_(options) {
  check_usage(!options.warmup_init || options.relative_step, "adafactor: warmup_init needs relative_step");
  for (const at::Tensor& master : masters_) {
    Moments moments;
    if (master.dim() >= 2) {
      std::vector<int64_t> row = master.sizes().vec();
      row.pop_back();
      std::vector<int64_t> column = master.sizes().vec();
      column.erase(column.end() - 2);
      moments.row = at::zeros(row, master.options());
      moments.column = at::zeros(column, master.options());
    } else {
      moments.square = at::zeros_like(master);
    }
    if (options.beta1) moments.exp_avg = at::zeros(master.sizes(), master.options());
    moments_.push_back(std::move(moments));
  }
}

void Adafactor::move(const std::vector<size_t>& present, double lr, const kernels::StepGate& gate) {
  if (gate.takes.defined() && gate.takes.item<float>() == 0) return;
  const at::Tensor counts = step_counts_.cpu();
  for (const size_t i : present) {
    at::Tensor gradient = parameters_[i].tensor.grad().to(at::kFloat);
    if (gate.gradient_factor.defined()) gradient = gradient * gate.gradient_factor;
    update(masters_[i], gradient, moments_[i], counts[static_cast<int64_t>(i)].item<double>(), lr);
  }
  round_masters();
}

double Adafactor::rate(double lr) const {
  return rate_at(std::max(1.0, step_counts_.max().item<double>()), lr);
}

double Adafactor::rate_at(double count, double lr) const {
  if (!options_.relative_step) return lr;
  return std::min(options_.warmup_init ? 1e-6 * count : 1e-2, 1 / std::sqrt(count));
}

// The gradient over the root of its second moment, which is updated.
at::Tensor Adafactor::normalised(const at::Tensor& gradient, const Moments& moments, double beta2) const {
  const at::Tensor square = gradient.square().add_(options_.eps1);
  if (moments.square.defined()) {
    moments.square.mul_(beta2).add_(square, 1 - beta2);
    return moments.square.rsqrt().mul_(gradient);
  }
  moments.row.mul_(beta2).add_(square.mean(-1), 1 - beta2);
  moments.column.mul_(beta2).add_(square.mean(-2), 1 - beta2);
  const at::Tensor rows = (moments.row / moments.row.mean(-1, /*keepdim=*/true)).rsqrt_().unsqueeze(-1);
  return (rows * moments.column.unsqueeze(-2).rsqrt()).mul_(gradient);
}

void Adafactor::update(const at::Tensor& weight, const at::Tensor& gradient, const Moments& moments, double count,
                       double lr) const {
  at::Tensor change = normalised(gradient, moments, 1 - std::pow(count, options_.decay_rate));
  change.div_((root_mean_square(change) / options_.clip_threshold).clamp_min_(1.0));
  at::Tensor rate = at::full({}, rate_at(count, lr), weight.options());
  if (options_.scale_parameter) rate = rate * root_mean_square(weight).clamp_min_(options_.eps2);
  change.mul_(rate);
  if (options_.beta1) {
    moments.exp_avg.mul_(*options_.beta1).add_(change, 1 - *options_.beta1);
    change = moments.exp_avg;
  }
  if (options_.weight_decay != 0) weight.sub_(weight * rate, options_.weight_decay);
  weight.sub_(change);
}

TensorMap Adafactor::memory() const {
  TensorMap memory;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto add = [&](const char* what, const at::Tensor& tensor) {
      if (tensor.defined()) memory[concat(what, ".", parameters_[i].name)] = tensor;
    };
    add("exp_avg_sq_row", moments_[i].row);
    add("exp_avg_sq_col", moments_[i].column);
    add("exp_avg_sq", moments_[i].square);
    add("exp_avg", moments_[i].exp_avg);
  }
  return memory;
}

}  // namespace prefusion::training
