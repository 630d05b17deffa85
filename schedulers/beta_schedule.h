#pragma once

#include <ATen/core/Tensor.h>

#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// The products abar_t of (1 - beta), [T] fp32 on the CPU, of a resolved config: the same operations in the same
// precision as diffusers, so the values are equal to the bit. Includes the rescaling to zero terminal SNR
// ("Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891) when the config asks for it.
at::Tensor make_alphas_cumprod(const SchedulerConfig& resolved);

// The same for samplers that divide by sqrt(abar): with zero terminal SNR the last entry is 2^-24 instead of 0.
at::Tensor make_positive_alphas_cumprod(const SchedulerConfig& resolved);

}  // namespace prefusion::schedulers
