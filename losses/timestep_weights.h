#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <vector>

#include "core/prediction_type.h"

// Weights of a timestep as functions of its signal-to-noise ratio, the square of signal scale over noise scale. They
// multiply errors inside the link function (GroupErrors::error_scale) or the loss of a group (GroupErrors::weights).
namespace prefusion::losses {

// "none", "min-snr", "debiased", "like-epsilon", "sigma-sqrt", "cosmap"
const std::vector<std::string>& timestep_weight_names();

// Usage error unless `name` is one of them and defined for predictions of that type; names the nearest.
void check_timestep_weight(std::string_view name, PredictionType type);

// The weight at each snr, finite and not negative, in its shape and dtype:
//   none          1
//   min-snr       min(snr, gamma) / snr for epsilon, / (snr + 1) for v_prediction, min(snr, gamma) for sample
//                 ("Efficient Diffusion Training via Min-SNR Weighting Strategy", arXiv 2303.09556, gamma 5)
//   debiased      1 / sqrt(min(snr, 1000)) for epsilon, 1 / (min(snr, 1000) + 1) for v_prediction (arXiv 2310.08442, as
//                 sd-scripts computes it)
//   like-epsilon  what makes an error that of the same prediction as noise: snr / (snr + 1) for v_prediction, snr for
//                 sample, (1 - t)^2 for flow
//   sigma-sqrt    sigma^-2, cosmap 2 / (pi * (1 - 2 sigma + 2 sigma^2)), with sigma = 1 / (1 + sqrt(snr)), flow's t
//                 ("Scaling Rectified Flow Transformers", arXiv 2403.03206, as diffusers computes them)
// min-snr of flow is min(1, gamma / snr) times its like-epsilon. Usage error as check_timestep_weight.
at::Tensor timestep_weight(std::string_view name, const at::Tensor& snr, PredictionType type, double gamma = 5);

}  // namespace prefusion::losses
