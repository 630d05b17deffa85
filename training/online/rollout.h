#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "training/online/policy_sampler.h"

namespace prefusion::training {

// What the policy sampled in one round: P prompts with k trajectories each, one prompt's after another's.
struct Rollout {
  int64_t round = 0;
  std::vector<std::string> prompts;  // P
  pipelines::Trajectory trajectory;  // of N = P * k items
  at::Tensor reward;                 // [P, k] fp32 on the CPU

  int64_t num_groups() const { return reward.size(0); }
  int64_t group_size() const { return reward.size(1); }
  // The steps that are decisions, in order.
  std::vector<int64_t> decisions() const;
};

// What a round logs of its rewards [P, k]: their mean, and the mean over prompts of their deviation.
std::map<std::string, at::Tensor> reward_metrics(const at::Tensor& reward);

// Samples rounds of trajectories and judges their pictures. A round is a function of the network's weights, the options
// and its number.
class RolloutSampler : public PolicySampler {
 public:
  RolloutSampler(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser, at::ScalarType dtype,
                 at::Device device)
      : PolicySampler(options, std::move(denoiser), dtype, device), group_size_(options.online.group_size) {}

  Rollout sample_round(int64_t round);

  // What a checkpoint must hold of a round, and the round made from it.
  static TensorMap tensors(const Rollout& rollout);
  Rollout restore(int64_t round, const TensorMap& tensors, const std::string& where);

 private:
  int64_t group_size_;
};

}  // namespace prefusion::training
