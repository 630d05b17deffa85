#pragma once

#include <memory>

#include "reward_models/registry.h"

namespace prefusion::reward_models {

// MPS (arXiv 2405.14705): exp(logit_scale) * cosine of the prompt and of what a cross model makes of the picture's
// tokens while looking at those of the prompt's tokens that belong to a condition. spec.path is a safetensors export of
// the public module's state_dict, alone or as model.safetensors in a transformers CLIP folder.
std::unique_ptr<RewardModel> open_mps(const RewardSpec& spec, const RewardContext& context);

}  // namespace prefusion::reward_models
