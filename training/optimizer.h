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

  // A gate that is shut leaves everything as it is, step counts included.
  void step(double lr, const kernels::StepGate& gate = {});
  // Forgets the gradients, or makes them zero where they are.
  void zero_grad();
  // From now on gradients stay in one place: recorded backward passes (training/graphed_step.h) have its address.
  void keep_gradients() { keeps_gradients_ = true; }

  // Global L2 norm of all gradients, as a 0-dim fp32 tensor (no host synchronisation).
  at::Tensor grad_norm() const;

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
  explicit Optimizer(std::vector<NamedTensor> parameters);
  Optimizer(Optimizer&&) = default;
  Optimizer& operator=(Optimizer&&) = default;

  // Moves the parameters `present`, which have gradients and whose step counts have gone up. What it does to masters is
  // for it to round.
  virtual void move(const std::vector<size_t>& present, double lr, const kernels::StepGate& gate) = 0;

  // What it remembers of each parameter, by names that no other state has.
  virtual TensorMap memory() const = 0;
  void round_masters();

  std::vector<NamedTensor> parameters_;
  std::vector<at::Tensor> masters_;  // the parameter itself where it is fp32
  at::Tensor step_counts_;           // [parameters] fp32, on the parameters' device
  std::vector<at::Tensor> counts_;   // its elements as 0-dim views
  bool has_masters_ = false;
  bool keeps_gradients_ = false;
};

// What clips gradients of that norm (0-dim) to `max_norm` when they are multiplied by it: max_norm / (norm + 1e-6)
// where that is below 1, as torch.nn.utils.clip_grad_norm_. Undefined for a max_norm of 0: nothing is clipped.
at::Tensor clip_factor(const at::Tensor& norm, double max_norm);

// AdamW with decoupled weight decay (arXiv 1711.05101), as torch.optim.AdamW. Moments are always fp32.
using AdamWOptions = kernels::AdamWSettings;
class AdamW : public Optimizer {
 public:
  AdamW(std::vector<NamedTensor> parameters, const AdamWOptions& options);

 protected:
  void move(const std::vector<size_t>& present, double lr, const kernels::StepGate& gate) override;
  TensorMap memory() const override;

 private:
  AdamWOptions options_;
  std::vector<at::Tensor> exp_avg_;
  std::vector<at::Tensor> exp_avg_sq_;
};

}  // namespace prefusion::training
