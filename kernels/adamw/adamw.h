#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::kernels {

// The constants of one AdamW step (arXiv 1711.05101).
struct AdamWSettings {
  double lr = 1e-5;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 1e-2;
};

// One step of AdamW on a half-precision parameter with an fp32 master, everything in one pass over the memory, without
// an fp32 copy of the gradient. With step count t from 1:
//   exp_avg    m = beta1 m + (1 - beta1) g
//   exp_avg_sq v = beta2 v + (1 - beta2) g^2
//   master     w = w (1 - lr weight_decay) - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)
//   parameter  w rounded
// parameter, gradient: bf16 or fp16, of one dtype; master, exp_avg, exp_avg_sq: fp32; all of one shape and device,
// those that are written to in one dense memory order. count: fp32 [], on the same device, so that a GPU need not wait.
// Run error when something does not fit, or for CUDA tensors in a build without CUDA.
void adamw_step(const at::Tensor& parameter, const at::Tensor& master, const at::Tensor& gradient,
                const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq, const at::Tensor& count,
                const AdamWSettings& settings);

// Per-device implementations; adamw.cpp checks. All tensors have the same order in memory.
namespace detail {

struct AdamWArgs {
  at::Tensor parameter, master, gradient, exp_avg, exp_avg_sq, count;
  AdamWSettings settings;
};

void adamw_step_cpu(const AdamWArgs& args);
void adamw_step_cuda(const AdamWArgs& args);

}  // namespace detail
}  // namespace prefusion::kernels
