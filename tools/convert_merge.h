#pragma once

#include <string>
#include <vector>

#include "tools/convert_model.h"

namespace prefusion::tools {

// What a LoRA found in a model.
struct MergeReport {
  std::filesystem::path file;
  std::string dialect;
  double scale = 1.0;
  std::vector<std::string> matched;    // "unet/<layer>"
  std::vector<std::string> unmatched;  // keys of the file
  std::map<int64_t, int64_t> ranks;    // how many layers have it
  std::map<double, int64_t> alphas;
};

// Adds LoRAs, PATH[:SCALE] each, to the weights of a model: W + sum of scale * alpha / rank * B A, computed in fp32 and
// rounded to the weight's dtype once, when it is written. Input error when no layer fits, a shape does not, or a LoRA
// depends on the timestep.
std::vector<MergeReport> merge_loras_into(ConvertibleModel& model, const std::vector<std::string>& arguments);

}  // namespace prefusion::tools
