#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "core/json_config.h"
#include "reward_models/reward_head.h"

namespace prefusion::reward_models {

// What `prefusion train-reward` writes (docs/formats.md): reward.json, the head's weights unless it is a cosine, and
// the CLIP it stands on, in the folder itself or elsewhere.
struct RewardFolder {
  std::filesystem::path folder;
  std::filesystem::path clip;  // folder of the CLIP
  std::string clip_key;        // of its weights; empty where they lie in the folder itself
  RewardHeadConfig head;
  Json json;  // the whole reward.json
};

// Input error when there is no reward.json or it does not fit.
RewardFolder read_reward_folder(const std::filesystem::path& folder);

// The head of a folder but for a cosine, in eval mode. Input error when head.safetensors is missing or does not fit.
std::shared_ptr<RewardHead> load_reward_head(const RewardFolder& folder, at::Device device);

// Tells the weights of one CLIP folder from another's by a little of each tensor.
std::string clip_weights_key(const std::filesystem::path& clip);

}  // namespace prefusion::reward_models
