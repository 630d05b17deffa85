#pragma once

#include <cstdint>
#include <string>

#include "core/json_config.h"

namespace prefusion::tools {

// What sampling has cost so far, and what pruning did.
struct SamplingCounts {
  int64_t evaluations = 0;       // denoiser calls times pictures in them; guidance doubles the work of each
  int64_t full_evaluations = 0;  // what they would have been without pruning
  int64_t previews = 0;          // decoded and scored on the way
  int64_t checked_groups = 0;    // with checks_pruning
  int64_t same_winner = 0;       // of these: the best picture would have been the same without pruning
  double sampling_seconds = 0;
  double preview_seconds = 0;

  SamplingCounts& operator+=(const SamplingCounts& other);
};
Json to_json(const SamplingCounts& counts);
SamplingCounts counts_from_json(const Json& json, const std::string& where);

}  // namespace prefusion::tools
