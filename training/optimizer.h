#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "core/safetensors.h"
#include "core/weights.h"
#include "kernels/adamw/adamw.h"

namespace prefusion::training {

// What moves the trained parameters by their .grad; one without a gradient is left alone, step count included.
// Half-precision parameters have fp32 masters here: the update is made on the master, the parameter is its rounding.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  virtual void step(double lr) = 0;
  void zero_grad();

  // Global L2 norm of all gradients, as a 0-dim fp32 tensor (no host synchronisation).
  at::Tensor grad_norm() const;
  // Scales all gradients by max_norm / (norm + kNormEps) where that is below 1, as torch.nn.utils.clip_grad_norm_.
  static constexpr double kNormEps = 1e-6;
  void clip_gradients(const at::Tensor& norm, double max_norm);

  // Everything needed to go on bit for bit: what the optimizer remembers, masters, step counts.
  TensorMap state() const;
  void load_state(const TensorMap& state, const std::string& where);

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  // The fp32 values being optimised, by parameter name.
  std::vector<NamedTensor> master_weights() const;
  // Bytes of state beyond the parameters themselves, without step counts.
  size_t state_bytes() const;
  // The learning rate the last step went by, given `lr`; another one where the optimizer has a schedule of its own.
  virtual double rate(double lr) const { return lr; }

 protected:
  // `counts_device`: where the step counts are kept, [parameters].
  Optimizer(std::vector<NamedTensor> parameters, at::Device counts_device);
  Optimizer(Optimizer&&) = default;
  Optimizer& operator=(Optimizer&&) = default;

  // `update(i, gradient, count)` for every parameter that has a gradient; its step count, from 1, goes up. Counts on
  // the CPU. What it does to masters is for it to round.
  template <typename Update>
  void for_each_gradient(const Update& update) {
    auto counts = step_counts_.accessor<float, 1>();
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const at::Tensor& gradient = parameters_[i].tensor.grad();
      if (!gradient.defined()) continue;
      const double count = counts[static_cast<int64_t>(i)] += 1;
      update(i, gradient, count);
    }
  }

  // What it remembers of each parameter, by names that no other state has.
  virtual TensorMap memory() const = 0;
  void round_masters();

  std::vector<NamedTensor> parameters_;
  std::vector<at::Tensor> masters_;  // the parameter itself where it is fp32
  at::Tensor step_counts_;           // [parameters] fp32
  bool has_masters_ = false;
};

// AdamW with decoupled weight decay (arXiv 1711.05101), as torch.optim.AdamW. Moments are always fp32.
using AdamWOptions = kernels::AdamWSettings;
class AdamW : public Optimizer {
 public:
  AdamW(std::vector<NamedTensor> parameters, const AdamWOptions& options);
  void step(double lr) override;

 protected:
  TensorMap memory() const override;

 private:
  AdamWOptions options_;
  std::vector<at::Tensor> exp_avg_;
  std::vector<at::Tensor> exp_avg_sq_;
  std::vector<at::Tensor> steps_;  // elements of the counts as 0-dim views, as the fused update wants them
};

}  // namespace prefusion::training
