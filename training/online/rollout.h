#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "pipelines/trajectory.h"
#include "training/align_options.h"
#include "training/picture_judge.h"

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

// Samples rounds of trajectories from a network and judges their pictures. A round is a function of the network's
// weights, the options and its number.
class RolloutSampler {
 public:
  // Reads --prompts. Input error when it holds none; usage error for one the judge cannot judge.
  RolloutSampler(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser, at::ScalarType dtype,
                 at::Device device);

  Rollout sample(int64_t round);

  // What a checkpoint must hold of a round, and the round made from it.
  static TensorMap tensors(const Rollout& rollout);
  Rollout restore(int64_t round, const TensorMap& tensors, const std::string& where);

  int64_t num_prompts() const { return static_cast<int64_t>(prompts_.size()); }

 private:
  // Each pass over the prompts has an order of its own.
  std::vector<std::string> prompts_of(int64_t round) const;
  std::vector<pipelines::KeyedRequest> requests_of(int64_t round, const std::vector<std::string>& prompts) const;
  pipelines::TrajectoryOptions trajectory_options(int64_t round) const;
  at::Tensor judge(const at::Tensor& latents, const std::vector<std::string>& prompts);

  const AlignOptions& options_;
  pipelines::TextToImage pipeline_;
  std::unique_ptr<PictureJudge> judge_;
  std::vector<std::string> prompts_;
};

}  // namespace prefusion::training
