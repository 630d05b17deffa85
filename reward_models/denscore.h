#pragma once

#include <memory>

#include "reward_models/registry.h"

namespace prefusion::reward_models {

// Denscore (LongAlign, arXiv 2410.11817): the cosine of picture and sentence, averaged over a caption's sentences, of a
// transformers CLIP folder.
std::unique_ptr<RewardModel> open_denscore(const RewardSpec& spec, const RewardContext& context);

}  // namespace prefusion::reward_models
