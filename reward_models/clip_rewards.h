#pragma once

#include <memory>

#include "reward_models/clip_model.h"

namespace prefusion::reward_models {

// PickScore (arXiv 2305.01569): exp(logit_scale) * cosine of a transformers CLIP folder.
std::unique_ptr<RewardModel> open_pickscore(const RewardSpec& spec, const RewardContext& context);

// CLIPScore (arXiv 2104.08718): scale * max(cosine, 0) of "prefix + prompt"; scale 100 and no prefix unless
// --reward-args say otherwise.
std::unique_ptr<RewardModel> open_clip_score(const RewardSpec& spec, const RewardContext& context);

}  // namespace prefusion::reward_models
