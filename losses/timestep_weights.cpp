#include "losses/timestep_weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numbers>

#include "core/error.h"
#include "losses/edit_distance.h"

namespace prefusion::losses {
namespace {

// (error of the noise that a prediction implies) / (error of the prediction).
at::Tensor like_epsilon(const at::Tensor& snr, PredictionType type) {
  switch (type) {
    case PredictionType::kEpsilon: return at::ones_like(snr);
    case PredictionType::kVPrediction: return snr / (snr + 1);
    case PredictionType::kSample: return snr;
    case PredictionType::kFlow: return snr / (snr.sqrt() + 1).square();
  }
  fail_run("no such prediction type");
}

// sd-scripts takes snr above 1000 for 1000; the lower bound keeps the last timestep of a zero terminal SNR finite.
at::Tensor debiased(const at::Tensor& snr, PredictionType type) {
  const at::Tensor bounded = snr.clamp(1e-6, 1000);
  return type == PredictionType::kVPrediction ? (bounded + 1).reciprocal() : bounded.rsqrt();
}

at::Tensor sigma_of(const at::Tensor& snr) {
  return (snr.sqrt() + 1).reciprocal();
}

at::Tensor cosmap(const at::Tensor& sigma) {
  return 2 / (std::numbers::pi * (1 - 2 * sigma + 2 * sigma.square()));
}

}  // namespace

const std::vector<std::string>& timestep_weight_names() {
  static const std::vector<std::string> kNames = {"none",         "min-snr",    "debiased",
                                                  "like-epsilon", "sigma-sqrt", "cosmap"};
  return kNames;
}

void check_timestep_weight(std::string_view name, PredictionType type) {
  const auto& names = timestep_weight_names();
  check_usage(std::ranges::find(names, name) != names.end(), "timestep weight: unknown '", name, "'; did you mean '",
              nearest_name(name, names), "'?");
  check_usage(name != "debiased" || type == PredictionType::kEpsilon || type == PredictionType::kVPrediction,
              "timestep weight debiased: not defined for ", prediction_type_name(type),
              " models, only for epsilon and v_prediction");
}

at::Tensor timestep_weight(std::string_view name, const at::Tensor& snr, PredictionType type, double gamma) {
  check_timestep_weight(name, type);
  if (name == "min-snr") return (gamma / snr).clamp_max(1) * like_epsilon(snr, type);
  if (name == "debiased") return debiased(snr, type);
  if (name == "like-epsilon") return like_epsilon(snr, type);
  if (name == "sigma-sqrt") return sigma_of(snr).square().reciprocal();
  if (name == "cosmap") return cosmap(sigma_of(snr));
  return at::ones_like(snr);
}

}  // namespace prefusion::losses
