#pragma once

#include <ATen/core/Tensor.h>

#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// Dynamic thresholding of predicted clean latents [B, ...]: the range of each item is limited to a quantile of its
// absolute values and scaled back to [-1, 1] ("Imagen", arXiv 2205.11487, section 2.3).
at::Tensor threshold_sample(const SchedulerConfig& resolved, const at::Tensor& sample);

// Thresholds, clips or leaves alone, as the config says.
at::Tensor limit_sample(const SchedulerConfig& resolved, const at::Tensor& sample);

}  // namespace prefusion::schedulers
