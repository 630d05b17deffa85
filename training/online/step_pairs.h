#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "training/online/policy_sampler.h"

namespace prefusion::training {

// What SPO compares at a step ("Step-aware Preference Optimization", arXiv 2406.04314).
struct StepPairOptions {
  int64_t num_candidates = 4;  // draws from the same latents
  int64_t max_timestep = 750;  // that the denoiser is told; no comparison above: too little can be seen there
  double min_gap = 0;          // pairs whose rewards differ by no more are left out
};

// The pairs of one round: M steps of any trajectories, each with its best and its worst candidate.
struct StepPairs {
  int64_t round = 0;
  std::vector<pipelines::KeyedRequest> requests;  // N trajectories
  pipelines::GuidedConditioning conditioning;     // N rows
  pipelines::SamplingPolicy policy;
  at::Tensor latents;       // [M, C, h, w]
  at::Tensor next;          // [M, 2, C, h, w] the better candidate first
  at::Tensor log_probs;     // [M, 2]
  at::Tensor reward;        // [M, 2] fp32 on the CPU
  at::Tensor items;         // [M] int64 on the CPU: which trajectory
  at::Tensor times;         // [M] of the sampler's type, on the CPU
  at::Tensor next_times;    // [M]
  at::Tensor final_reward;  // [N] fp32 on the CPU, of the finished pictures
};

// Samples trajectories that draw several candidates at each step, go on from a random one, and are judged at every
// step: the reward of a candidate is that of the clean picture the policy predicts from it.
class StepPairSampler : public PolicySampler {
 public:
  StepPairSampler(const AlignOptions& options, const StepPairOptions& pairs, std::shared_ptr<unet::Denoiser> denoiser,
                  at::ScalarType dtype, at::Device device)
      : PolicySampler(options, std::move(denoiser), dtype, device),
        pairs_(pairs),
        trajectories_per_prompt_(options.online.group_size) {}

  StepPairs sample_round(int64_t round);

  // What a checkpoint must hold of a round, and the round made from it.
  static TensorMap tensors(const StepPairs& pairs);
  StepPairs restore(int64_t round, const TensorMap& tensors, const std::string& where);

 private:
  StepPairs empty_round(int64_t round);
  pipelines::StepRange candidate_steps(const pipelines::SamplingPolicy& policy) const;
  at::Tensor candidate_rewards(const pipelines::TrajectoryPoint& point, const pipelines::SamplingPolicy& policy,
                               std::span<const pipelines::KeyedRequest> requests);

  StepPairOptions pairs_;
  int64_t trajectories_per_prompt_;
};

}  // namespace prefusion::training
