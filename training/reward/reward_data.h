#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "data/dataset.h"
#include "training/reward/reward_options.h"

namespace prefusion::training {

// One comparison a reward model is trained or measured on.
struct RewardGroup {
  int32_t source = 0;  // which of RewardData::sources
  int32_t column = 0;  // of the head's scores
  int64_t index = 0;   // in the source
  int64_t user = -1;   // place in RewardData::users
  double weight = 1;   // by its prompt; the row's own comes with its pictures
};

// Preference data as a reward model is fitted to it. No prompt of --data is in two of the parts.
struct RewardData {
  // The same rows once for what they say overall and once an aspect.
  std::vector<std::shared_ptr<const data::PreferenceDataset>> sources;
  std::vector<std::string> columns;  // what the sources' labels are about: "overall" and the aspects
  std::vector<std::string> users;    // of pal, sorted
  std::vector<RewardGroup> train;
  std::vector<RewardGroup> validation;  // chooses the step, the temperature and the tie threshold
  std::vector<RewardGroup> test;        // measured once
  int64_t group_size = 2;               // k
  bool labels_are_ratings = false;      // of --loss mse

  const data::PreferenceDataset& source(const RewardGroup& group) const { return *sources[group.source]; }
  const std::string& prompt(const RewardGroup& group) const { return source(group).prompt(group.index); }
  // The labels of a group's k items, as losses/reward_losses.h takes them.
  std::vector<double> labels(const RewardGroup& group) const;
  int64_t num_ties(const std::vector<RewardGroup>& groups) const;
  int64_t num_prompts(const std::vector<RewardGroup>& groups) const;
  // Rows, ties, prompts and groups of every part, for reward.json.
  Json facts(const TrainRewardOptions& options) const;
};

// `known_users` come first among the users; with kUsers their rows are left out.
RewardData open_reward_data(const TrainRewardOptions& options, const std::vector<std::string>& known_users);

}  // namespace prefusion::training
