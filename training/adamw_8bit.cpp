#include "training/adamw_8bit.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "kernels/adamw_8bit/adamw_8bit.h"

namespace prefusion::training {
AdamW8bit::AdamW8bit(std::vector<NamedTensor> parameters, const AdamWOptions& options)
    : Optimizer(std::move(parameters)), options_(options) {
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

void AdamW8bit::move(const std::vector<size_t>& present, double lr, const kernels::StepGate& gate) {
  AdamWOptions settings = options_;
  settings.lr = lr;
  std::vector<Elements> small;
  std::vector<kernels::AdamWTensors> small_tensors;
  for (const size_t i : present) {
    const Elements e = elements_of(i);
    const Moments& moments = moments_[i];
    if (moments.exp_avg_codes) {
      kernels::adamw_8bit_step(e.parameter, e.weight, e.gradient, moments.exp_avg_codes->bytes(),
                               moments.exp_avg_sq_codes->bytes(), counts_[i], settings, gate);
      write_back(e);
    } else {
      small_tensors.push_back({e.parameter, e.weight, e.gradient, moments.exp_avg, moments.exp_avg_sq, counts_[i]});
      small.push_back(e);
    }
  }
  kernels::adamw_step(std::move(small_tensors), settings, gate);
  for (const Elements& e : small) write_back(e);
}

AdamW8bit::Elements AdamW8bit::elements_of(size_t i) const {
  const at::Tensor parameter = parameters_[i].tensor.detach();
  const at::Tensor weight = masters_[i].contiguous();
  const at::Tensor gradient = parameters_[i].tensor.grad().contiguous().view(-1);
  const bool has_master = parameter.scalar_type() != at::kFloat;
  if (!has_master) return {i, at::Tensor(), weight.view(-1), gradient};
  const at::Tensor rounded =
      parameter.is_contiguous() ? parameter : at::empty_like(parameter, at::MemoryFormat::Contiguous);
  return {i, rounded.view(-1), weight.view(-1), gradient};
}

void AdamW8bit::write_back(const Elements& elements) {
  const at::Tensor &master = masters_[elements.number], parameter = parameters_[elements.number].tensor.detach();
  if (!master.is_contiguous()) master.copy_(elements.weight.view(master.sizes()));
  if (elements.parameter.defined() && !parameter.is_contiguous()) parameter.copy_(master);
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
