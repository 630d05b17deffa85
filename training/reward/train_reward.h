#pragma once

#include <ATen/core/Tensor.h>

#include "core/json_config.h"
#include "training/reward/reward_options.h"

namespace prefusion::training {

// Fits a reward model to preference data and writes its folder. Returns report.json: how good the model is on prompts
// it never saw, before and after. Goes on exactly where a killed run stopped, with `resume`.
Json train_reward(const TrainRewardOptions& options, at::Device device, at::ScalarType dtype);

}  // namespace prefusion::training
