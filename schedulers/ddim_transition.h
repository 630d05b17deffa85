#pragma once

#include <ATen/core/Tensor.h>

#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// The distribution of x_prev given x_t: normal around `mean` with standard deviation `deviation`.
struct DdimTransition {
  at::Tensor clean;      // predicted x_0, limited as the config says
  at::Tensor mean;       // like the sample
  at::Tensor deviation;  // like alpha
};

// Formulas (12) and (16) of "Denoising Diffusion Implicit Models", arXiv 2010.02502, from abar_t = alpha to
// abar_prev = alpha_previous:
//   deviation = eta * sqrt((1 - abar_prev) / (1 - abar_t) * (1 - abar_t / abar_prev))
//   mean      = sqrt(abar_prev) * clean + sqrt(1 - abar_prev - deviation^2) * noise
// alpha and alpha_previous broadcast against the sample. Scalars keep its dtype, as diffusers does; per-item tensors
// should have its dtype.
DdimTransition ddim_transition(const SchedulerConfig& resolved, const at::Tensor& prediction, const at::Tensor& sample,
                               const at::Tensor& alpha, const at::Tensor& alpha_previous, double eta);

}  // namespace prefusion::schedulers
