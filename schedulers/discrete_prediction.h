#pragma once

#include <ATen/core/Tensor.h>

#include "core/prediction_type.h"

namespace prefusion::schedulers {

struct CleanAndNoise {
  at::Tensor clean;  // predicted x_0
  at::Tensor noise;  // predicted epsilon
};

// What a prediction says about the clean latents and the noise in sample = signal * clean + deviation * noise, where
// signal^2 + deviation^2 = 1 (fp32 scalars). Input error for flow predictions.
CleanAndNoise split_prediction(PredictionType type, const at::Tensor& prediction, const at::Tensor& sample,
                               const at::Tensor& signal, const at::Tensor& deviation);

}  // namespace prefusion::schedulers
