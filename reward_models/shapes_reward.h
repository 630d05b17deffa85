#pragma once

#include <memory>

#include "reward_models/registry.h"

namespace prefusion::reward_models {

// The judge of the shapes world (docs/shapes.md): 2 for a correct picture, plus its taste in 0 .. 1. A prompt outside
// the world's grammar is a usage error.
std::unique_ptr<RewardModel> open_shapes_reward(const RewardSpec& spec, const RewardContext& context);

}  // namespace prefusion::reward_models
