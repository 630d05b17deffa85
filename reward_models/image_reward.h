#pragma once

#include <memory>

#include "reward_models/registry.h"

namespace prefusion::reward_models {

// ImageReward (arXiv 2304.05977): BLIP reads the prompt while looking at the picture, and a linear head scores what it
// made of the first token. spec.path is a folder with the weights, med_config.json and a BERT tokenizer, or the file of
// the weights in such a folder.
std::unique_ptr<RewardModel> open_image_reward(const RewardSpec& spec, const RewardContext& context);

}  // namespace prefusion::reward_models
