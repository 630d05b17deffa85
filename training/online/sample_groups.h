#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "losses/objective.h"

namespace prefusion::training {

// Samples of one prompt as a group of preference data, best first.
struct SampleGroup {
  int64_t prompt = 0;
  std::vector<int64_t> samples;  // positions among those of the prompt
  std::vector<double> labels;    // one each
};

// What rewards [P, k] make of the samples of P prompts, as `prefusion align` would take a row of as many pictures
// (docs/formats.md): for a pair the best (1) and the worst (0), for a list all of them with the share of the others
// that each one beats, for single pictures of either label the best (1) and the worst (0) as groups of one, for single
// pictures the best. Prompts whose samples are all worth the same are left out. Of equals the first sample comes first.
std::vector<SampleGroup> plan_sample_groups(losses::DataKind kind, const at::Tensor& reward);

}  // namespace prefusion::training
