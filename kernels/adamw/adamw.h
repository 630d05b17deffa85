#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/step_gate.h"

namespace prefusion::kernels {

// The constants of one AdamW step (arXiv 1711.05101).
struct AdamWSettings {
  double lr = 1e-5;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 1e-2;
};

// What a step reads and writes of one parameter, all of one shape and device, those that are written to in one dense
// memory order.
struct AdamWTensors {
  at::Tensor parameter;            // bf16 or fp16; undefined where the master is the parameter
  at::Tensor master;               // fp32
  at::Tensor gradient;             // in the parameter's dtype
  at::Tensor exp_avg, exp_avg_sq;  // fp32
  at::Tensor count;                // fp32 [], on the same device, so that a GPU need not wait
};

// One step of AdamW on all parameters, everything in one pass over the memory and, on a GPU, in one launch for dozens
// of parameters; half precision without an fp32 copy of the gradients. With g the gradient times the gate's factor and
// t the step count from 1:
//   exp_avg    m = beta1 m + (1 - beta1) g
//   exp_avg_sq v = beta2 v + (1 - beta2) g^2
//   master     w = w (1 - lr weight_decay) - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)
//   parameter  w rounded
// Where the gate is shut, nothing is written. Run error when something does not fit, or for CUDA tensors in a build
// without CUDA.
void adamw_step(std::vector<AdamWTensors> tensors, const AdamWSettings& settings, const StepGate& gate = {});

// Per-device implementations; adamw.cpp checks. All tensors have the same order in memory, all gradients one dtype.
namespace detail {

struct AdamWArgs {
  std::vector<AdamWTensors> tensors;
  AdamWSettings settings;
  StepGate gate;
};

void adamw_step_cpu(const AdamWArgs& args);
void adamw_step_cuda(const AdamWArgs& args);

}  // namespace detail
}  // namespace prefusion::kernels
