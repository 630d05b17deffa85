#pragma once

#include <filesystem>
#include <string>

#include "core/json_config.h"
#include "training/reward/reward_network.h"
#include "training/reward/reward_options.h"

namespace prefusion::training {

// The CLIP a run starts from, and what is known of a pal head it goes on with.
struct RewardStart {
  std::filesystem::path clip;                       // folder
  std::shared_ptr<reward_models::RewardHead> head;  // of --train users; else null
  std::vector<std::string> known_users;
  bool has_weights = true;
};

// Writes the weights into the output folder: a whole CLIP where any of its tensors was trained, and the head.
// Returns what reward.json says of them: clip, clip_key, head.
Json write_reward_weights(const TrainRewardOptions& options, const RewardStart& start, RewardNetwork& network);

// README.md: what the model is, how good it is, how to use it.
std::string reward_card(const TrainRewardOptions& options, const Json& reward, const Json& report);

}  // namespace prefusion::training
