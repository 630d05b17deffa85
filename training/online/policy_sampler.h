#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "losses/online/online_objective.h"
#include "pipelines/trajectory.h"
#include "training/align_options.h"
#include "training/online/prompt_rounds.h"
#include "training/picture_judge.h"

namespace prefusion::training {

// Samples a network as the options say and judges its pictures.
class PolicySampler {
 public:
  // Usage error for a prompt the judge cannot judge.
  PolicySampler(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser, at::ScalarType dtype,
                at::Device device);

  // Trajectories of one round's options: steps, noise, guidance, and the window of random steps, which slides with the
  // round.
  pipelines::TrajectoryOptions trajectory_options(int64_t round) const;

  // Without gradients, some at a time; how many does not change what they are.
  pipelines::Trajectory sample(std::span<const pipelines::KeyedRequest> requests,
                               const pipelines::TrajectoryOptions& options);

  // The requests in parts that are sampled side by side.
  static std::vector<std::span<const pipelines::KeyedRequest>> sampled_together(
      std::span<const pipelines::KeyedRequest> requests);

  // The reward of clean latents [N, C, h, w] under prompts [N]: fp32 [N] on the CPU.
  at::Tensor judge(const at::Tensor& latents, std::span<const pipelines::KeyedRequest> requests);

  const PromptRounds& prompts() const { return prompts_; }
  pipelines::TextToImage& pipeline() { return pipeline_; }
  const pipelines::TextToImage& pipeline() const { return pipeline_; }

  // How every round's steps are made.
  pipelines::SamplingPolicy policy() const { return pipelines::make_policy(pipeline_, trajectory_options(0)); }

 private:
  const AlignOptions& options_;
  const losses::OnlineObjective& objective_;
  int64_t num_random_steps_ = 0;  // that a window slides over
  PromptRounds prompts_;
  pipelines::TextToImage pipeline_;
  std::unique_ptr<PictureJudge> judge_;
};

// Input error, naming `where`, when a checkpoint lacks one of them.
void check_round_tensors(const TensorMap& tensors, std::initializer_list<const char*> names, const std::string& where);

}  // namespace prefusion::training
