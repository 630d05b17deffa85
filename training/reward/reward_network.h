#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "core/weights.h"
#include "reward_models/clip_network.h"
#include "reward_models/reward_head.h"
#include "training/reward/reward_data.h"
#include "training/reward/reward_options.h"

namespace prefusion::training {

// A reward model in training: a CLIP, a head behind it, and which of their weights move.
class RewardNetwork {
 public:
  // `models_ties`: the loss has a parameter for them.
  RewardNetwork(reward_models::ClipNetwork clip, std::shared_ptr<reward_models::RewardHead> head,
                const TrainRewardOptions& options, bool models_ties, at::Device device);

  // Parameters with the same rate.
  struct ParameterGroup {
    double lr = 0;  // 0: the run's
    std::vector<NamedTensor> parameters;
  };
  std::vector<ParameterGroup> trainable() const;
  bool trains_towers() const { return trains_towers_; }

  // prepared fp32 [N, 3, S, S] on the CPU -> [N, Dv], before the projection
  at::Tensor pooled_pictures(const at::Tensor& prepared);
  // -> [N, Dt], before the projection
  at::Tensor pooled_prompts(const std::vector<std::string>& prompts);
  // fp32 [N, width], projected
  at::Tensor project_pictures(const at::Tensor& pooled);
  at::Tensor project_prompts(const at::Tensor& pooled);

  reward_models::RewardHead& head() { return *head_; }
  const reward_models::ClipNetwork& clip() const { return clip_; }
  const at::Tensor& log_tie() const { return log_tie_; }  // undefined where ties are not modelled
  at::Device device() const { return device_; }

  void train(bool on);
  // With kUsers: takes the gradient of users that were known before.
  void hold_known_users();
  void set_known_users(int64_t count) { num_known_users_ = count; }

 private:
  bool is_trained(const std::string& name) const;

  reward_models::ClipNetwork clip_;
  std::shared_ptr<reward_models::RewardHead> head_;
  RewardTraining training_;
  int64_t num_last_layers_ = 0;
  bool has_cosine_head_ = true;
  bool trains_towers_ = false;
  int64_t num_known_users_ = 0;
  at::Tensor log_tie_;
  at::Device device_;
};

}  // namespace prefusion::training
