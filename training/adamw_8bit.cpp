#include "training/adamw_8bit.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "kernels/adamw_8bit/adamw_8bit.h"

namespace prefusion::training {
namespace {

// One step of AdamW on elements with fp32 moments, which are updated too. `count` from 1.
void adamw_update(const at::Tensor& weight, const at::Tensor& gradient, const at::Tensor& exp_avg,
                  const at::Tensor& exp_avg_sq, double count, double lr, const AdamWOptions& options) {
  exp_avg.lerp_(gradient, 1 - options.beta1);
  exp_avg_sq.mul_(options.beta2).addcmul_(gradient, gradient, 1 - options.beta2);
  const double correction1 = 1 - std::pow(options.beta1, count);
  const double correction2 = std::sqrt(1 - std::pow(options.beta2, count));
  weight.mul_(1 - lr * options.weight_decay);
  weight.addcdiv_(exp_avg, exp_avg_sq.sqrt().div_(correction2).add_(options.eps), -lr / correction1);
}

}  // namespace

AdamW8bit::AdamW8bit(std::vector<NamedTensor> parameters, const AdamWOptions& options)
    : Optimizer(std::move(parameters), at::kCPU), options_(options) {
  for (const at::Tensor& master : masters_) {
    Moments moments;
    if (master.numel() < kSmallest) {
      moments.exp_avg = at::zeros({master.numel()}, master.options());
      moments.exp_avg_sq = at::zeros({master.numel()}, master.options());
    } else {
      moments.exp_avg_codes.emplace(master.numel(), /*is_signed=*/true, master.device());
      moments.exp_avg_sq_codes.emplace(master.numel(), /*is_signed=*/false, master.device());
    }
    moments_.push_back(std::move(moments));
  }
}

void AdamW8bit::step(double lr) {
  at::NoGradGuard no_grad;
  for_each_gradient([&](size_t i, const at::Tensor& gradient, double count) {
    const at::Tensor parameter = parameters_[i].tensor.detach();
    const bool has_master = parameter.scalar_type() != at::kFloat;
    // Elements in the order of the shape, whatever the layout: a state fits wherever it is loaded.
    const at::Tensor weight = masters_[i].contiguous();
    const bool is_in_place = weight.is_same(masters_[i]) && parameter.is_contiguous();
    const bool is_rounded = is_in_place && has_master && moments_[i].exp_avg_codes;
    update(is_rounded ? parameter.view(-1) : at::Tensor(), weight.view(-1), gradient.contiguous().view(-1), moments_[i],
           count, lr);
    if (!weight.is_same(masters_[i])) masters_[i].copy_(weight);
    if (has_master && !is_rounded) parameter.copy_(masters_[i]);
  });
}

void AdamW8bit::update(const at::Tensor& parameter, const at::Tensor& weight, const at::Tensor& gradient,
                       const Moments& moments, double count, double lr) const {
  if (!moments.exp_avg_codes) {
    adamw_update(weight, gradient.to(at::kFloat), moments.exp_avg, moments.exp_avg_sq, count, lr, options_);
    return;
  }
  AdamWOptions settings = options_;
  settings.lr = lr;
  kernels::adamw_8bit_step(parameter, weight, gradient, moments.exp_avg_codes->bytes(),
                           moments.exp_avg_sq_codes->bytes(), count, settings);
}

TensorMap AdamW8bit::memory() const {
  TensorMap memory;
  const auto add = [&memory](const std::string& moment, const std::string& name, const at::Tensor& values,
                             const std::optional<DynamicTensor>& codes) {
    if (!codes) {
      memory[moment + "." + name] = values;
      return;
    }
    memory[moment + ".codes." + name] = codes->codes();
    memory[moment + ".scales." + name] = codes->scales();
  };
  for (size_t i = 0; i < parameters_.size(); ++i) {
    add("exp_avg", parameters_[i].name, moments_[i].exp_avg, moments_[i].exp_avg_codes);
    add("exp_avg_sq", parameters_[i].name, moments_[i].exp_avg_sq, moments_[i].exp_avg_sq_codes);
  }
  return memory;
}

}  // namespace prefusion::training
