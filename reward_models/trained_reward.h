#pragma once

#include <memory>

#include "reward_models/registry.h"

namespace prefusion::reward_models {

// A folder of `prefusion train-reward`, whatever its head. Options: clip (folder of the CLIP, where it moved), aspect
// (column of an aspects head; overall by default).
std::unique_ptr<RewardModel> open_trained_reward(const RewardSpec& spec, const RewardContext& context);

// The same of a pal head, for one user: option user (the mean of all by default), clip.
std::unique_ptr<RewardModel> open_pal(const RewardSpec& spec, const RewardContext& context);

}  // namespace prefusion::reward_models
