#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "losses/objective.h"
#include "pipelines/trajectory.h"
#include "training/align_options.h"
#include "training/batch_source.h"
#include "training/encoded_data.h"
#include "training/policy.h"
#include "training/reference_policy.h"

namespace prefusion::training {

// Whether the objective's rejected pictures may be samples: it then has a parameter "rejected".
bool samples_rejected(const losses::ObjectiveInfo& objective);

// Self-play ("Self-Play Fine-Tuning of Diffusion Models for Text-to-Image Generation", SPIN-Diffusion, arXiv
// 2402.10210): given pictures are preferred to what the opponent makes of their prompts, the policy of the iteration
// before, which is the reference as well. Every draw of a group gets a sample of its own, without noise on the way:
// a function of (seed, item, draw) and the opponent's weights.
class OwnSamples {
 public:
  // What sampling needs to know of the model, whose encoders are loaded for it and freed again.
  OwnSamples(const AlignOptions& options, const Policy& policy, const EncodedData& data, at::ScalarType dtype,
             at::Device device);

  // Groups of one picture -> pairs: item 1 is the opponent's, for the prompt of the draw (the empty one where the
  // caption was dropped).
  EncodedBatch with_rejected(const EncodedBatch& batch, ReferencePolicy& opponent) const;

  // Where the samples of a batch start, [B, C, h, w] fp32 on the CPU.
  at::Tensor noise_of(const EncodedBatch& batch) const;

 private:
  pipelines::GuidedConditioning conditioning(const EncodedBatch& batch) const;

  uint64_t seed_;
  at::ScalarType dtype_;
  pipelines::GuidanceOptions guidance_;
  pipelines::SamplingPolicy sampling_;
  pipelines::GuidedConditioning empty_;  // of the empty prompt, a row
  LatentScaling scaling_;
  std::vector<int64_t> latent_shape_;  // [C, h, w]
  at::Tensor time_ids_;                // [n] of a sample; undefined where the model takes none
};

}  // namespace prefusion::training
