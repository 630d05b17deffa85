#pragma once

#include <memory>

#include "reward_models/registry.h"

namespace prefusion::reward_models {

// LAION's aesthetic predictors and v2.5: a linear head on the normalised picture features of a CLIP or SigLIP.
std::unique_ptr<RewardModel> open_aesthetic(const RewardSpec& spec, const RewardContext& context);

}  // namespace prefusion::reward_models
