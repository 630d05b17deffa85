#pragma once

#include <memory>

#include "reward_models/clip_model.h"

namespace prefusion::reward_models {

// PickScore (arXiv 2305.01569): exp(logit_scale) * cosine of a transformers CLIP folder.
std::unique_ptr<RewardModel> open_pickscore(const RewardSpec& spec, const RewardContext& context);

// CLIPScore (arXiv 2104.08718): scale * max(cosine, 0) of "prefix + prompt"; scale 100 and no prefix unless
// --reward-args say otherwise. PATH is a transformers folder, or a folder or file of open_clip.
std::unique_ptr<RewardModel> open_clip_score(const RewardSpec& spec, const RewardContext& context);

// HPSv2 and HPSv2.1 (arXiv 2306.09341): the bare cosine of an open_clip model.
std::unique_ptr<RewardModel> open_hpsv2(const RewardSpec& spec, const RewardContext& context);

}  // namespace prefusion::reward_models
