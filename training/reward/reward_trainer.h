#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "losses/reward_losses.h"
#include "training/optimizer.h"
#include "training/reward/reward_batches.h"
#include "training/reward/reward_data.h"
#include "training/reward/reward_network.h"
#include "training/reward/reward_options.h"
#include "training/reward/reward_order.h"

namespace prefusion::training {

// What a step did.
struct RewardStep {
  double loss = 0;
  double grad_norm = 0;
  double lr = 0;
  double right = 0;     // pairs ordered as they were judged
  double compared = 0;  // pairs without ties
};

// The optimizers of a run, and its step: batches, loss, gradients, update.
class RewardTrainer {
 public:
  RewardTrainer(const TrainRewardOptions& options, const losses::RewardLoss& loss,
                std::map<std::string, double> loss_parameters, const RewardData& data, RewardNetwork& network,
                RewardBatches& batches);

  int64_t num_steps() const { return num_steps_; }
  int64_t num_parameters() const;

  // Optimizer step number `step`, from 0. Run error when loss or gradients are not finite.
  RewardStep step(int64_t step);

  // Weights, moments and masters, by "optimizer-N".
  std::map<std::string, TensorMap> state() const;
  void load_state(const std::map<std::string, TensorMap>& state, const std::string& where);

 private:
  std::vector<RewardGroup> groups_at(int64_t micro_step);
  void seed_dropout(int64_t step) const;
  at::Tensor loss_of(const RewardBatch& batch) const;
  at::Tensor negatives_of(const RewardBatch& batch) const;
  at::Tensor grad_norm() const;  // of all optimizers together

  const TrainRewardOptions& options_;
  const losses::RewardLoss& loss_;
  std::map<std::string, double> loss_parameters_;
  const RewardData& data_;
  RewardNetwork& network_;
  RewardBatches& batches_;
  RewardOrder order_;
  int64_t num_steps_ = 0;
  std::vector<double> rates_;  // learning rates of the optimizers
  std::vector<AdamW> optimizers_;
};

}  // namespace prefusion::training
