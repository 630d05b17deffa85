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
  std::vector<float> labels;     // one each
};

// The groups that rewards [P, k] make of the samples of P prompts: those of a row of k pictures with one score
// (data/group_rules.h), labels of lists being the shares of the others that each one beats. Single pictures are the
// best. Prompts whose samples are all worth the same are left out.
std::vector<SampleGroup> plan_sample_groups(losses::DataKind kind, const at::Tensor& reward);

}  // namespace prefusion::training
