#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "reward_models/reward_head.h"
#include "training/reward/reward_data.h"
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

// Input error when --train users is to go on with a folder that has no pal head.
RewardStart find_reward_start(const TrainRewardOptions& options, at::Device device);

// The network a run trains on `data`, in eval mode: the start's CLIP or a new one, and a head. Usage error for
// --head-args that no head can have.
std::unique_ptr<RewardNetwork> make_reward_network(const TrainRewardOptions& options, const RewardStart& start,
                                                   const RewardData& data, at::Device device, at::ScalarType dtype);

// What must be the same for a resumed run to be the same run.
Json reward_fingerprint(const TrainRewardOptions& options, const std::map<std::string, double>& loss_parameters,
                        const RewardData& data, RewardNetwork& network, int64_t num_steps, at::ScalarType dtype);

}  // namespace prefusion::training
