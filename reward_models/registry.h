#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "reward_models/reward_model.h"
#include "reward_models/reward_spec.h"
#include "reward_models/shared_parts.h"

namespace prefusion::reward_models {

struct RewardContext {
  at::ScalarType dtype = at::kFloat;  // of the towers; the last product is always fp32
  at::Device device = at::kCPU;
  SharedParts* shared = nullptr;  // by the rewards of one run; null: no sharing
};

// One kind of reward model.
struct RewardKind {
  std::string name;
  std::string path_help;  // what PATH is; empty where there is none
  std::string summary;    // what a score is, with its scale
  std::string options;    // "name=default (what it does)", for --list-rewards
  std::string paper;
  std::unique_ptr<RewardModel> (*open)(const RewardSpec&, const RewardContext&);
};

// All kinds, in the order they are listed.
const std::vector<RewardKind>& reward_kinds();

// Usage error for a kind that is not known, or a path where there is none, before anything is loaded.
void check_reward_spec(const RewardSpec& spec);

// Loads the reward model of a spec. Usage error for a kind or option that is not known; input error when its files are
// missing or do not fit.
std::unique_ptr<RewardModel> open_reward(const RewardSpec& spec, const RewardContext& context);

// The text of --list-rewards.
std::string list_rewards();

}  // namespace prefusion::reward_models
