#pragma once

#include <string>
#include <string_view>

namespace prefusion {

// What a denoiser predicts.
enum class PredictionType {
  kEpsilon,      // the noise
  kVPrediction,  // sqrt(abar) * noise - sqrt(1 - abar) * latents ("Progressive Distillation", arXiv 2202.00512)
  kSample,       // the clean latents
  kFlow,         // velocity, noise - latents
};

// From the spelling of scheduler_config.json ("epsilon", "v_prediction", "sample", "flow_prediction"); input error
// otherwise.
PredictionType parse_prediction_type(std::string_view name, const std::string& where);
const char* prediction_type_name(PredictionType type);

}  // namespace prefusion
