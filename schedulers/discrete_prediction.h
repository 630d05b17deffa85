#pragma once

#include <ATen/core/Tensor.h>

#include "core/prediction_type.h"

namespace prefusion::schedulers {

struct CleanAndNoise {
  at::Tensor clean;  // predicted x_0
  at::Tensor noise;  // predicted epsilon
};

// What a prediction says about the clean latents and the noise in sample = signal * clean + deviation * noise (fp32
// scalars, or per-item tensors), where signal^2 + deviation^2 = 1, or signal + deviation = 1 for flow predictions.
CleanAndNoise split_prediction(PredictionType type, const at::Tensor& prediction, const at::Tensor& sample,
                               const at::Tensor& signal, const at::Tensor& deviation);

// The prediction that says `clean`: split_prediction(type, result, ...).clean is it again.
at::Tensor prediction_of(PredictionType type, const at::Tensor& clean, const at::Tensor& sample,
                         const at::Tensor& signal, const at::Tensor& deviation);

}  // namespace prefusion::schedulers
