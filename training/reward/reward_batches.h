#pragma once

#include <ATen/core/Tensor.h>

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "training/reward/feature_table.h"
#include "training/reward/picture_reader.h"
#include "training/reward/reward_data.h"
#include "training/reward/reward_network.h"

namespace prefusion::training {

// B groups as the loss needs them, on the network's device.
struct RewardBatch {
  std::vector<RewardGroup> groups;
  std::vector<std::string> prompts;  // B
  at::Tensor pictures;               // fp32 [B * k, width], projected
  at::Tensor prompt_features;        // fp32 [B, width], projected
  at::Tensor scores;                 // fp32 [B, k], each group's in its column
  at::Tensor labels;                 // fp32 [B, k]
  at::Tensor weights;                // fp32 [B]; 0 where a picture cannot be read
};

// Makes batches: from features that were encoded once, or through the towers.
class RewardBatches {
 public:
  // Frozen towers encode everything here.
  RewardBatches(RewardData& data, RewardNetwork& network, const TrainRewardOptions& options);

  // Starts to read what the next call of make() is going to ask for. Nothing to do on frozen towers.
  void prefetch(const std::vector<RewardGroup>& groups);
  // With gradients where grad mode is on.
  RewardBatch make(const std::vector<RewardGroup>& groups);

 private:
  std::vector<ReadGroup> take(const std::vector<RewardGroup>& groups);
  at::Tensor live_pictures(RewardBatch& batch);

  const RewardData& data_;
  RewardNetwork& network_;
  std::unique_ptr<FeatureTable> table_;
  std::unique_ptr<PictureReader> reader_;
  BadGroups bad_;
  std::vector<RewardGroup> expected_;
  std::future<std::vector<ReadGroup>> pending_;
};

}  // namespace prefusion::training
