#pragma once

#include "core/json_config.h"
#include "training/reward/reward_network.h"
#include "training/reward/reward_options.h"
#include "training/reward/reward_start.h"

namespace prefusion::training {

// Writes the weights into the output folder: a whole CLIP where any of its tensors was trained, and the head.
// Returns what reward.json says of them: clip, clip_key, head, loss, log_tie.
Json write_reward_weights(const TrainRewardOptions& options, const RewardStart& start, RewardNetwork& network);

// The files beside the weights: report.json, README.md (what the model is, how good it is, how to use it) and, last,
// reward.json.
void write_reward_files(const TrainRewardOptions& options, const Json& reward, const Json& report);

}  // namespace prefusion::training
