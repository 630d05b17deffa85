#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::losses {

// Where the noisy latents and targets of a batch come from.
enum class LatentSource {
  kForwardNoise,      // noise drawn for the group and added to the latents
  kDdimInversion,     // the latents walked up by DDIM inversion ("InPO", arXiv 2503.18454)
  kRenoiseInversion,  // the same with every step predicted twice and averaged ("SmPO-Diffusion", arXiv 2506.02698)
};

const char* latent_source_name(LatentSource source);  // "forward noise", "DDIM inversion", "ReNoise inversion"

// What an objective sees of a batch: B groups of k items (k = 1 unpaired, 2 a pair, more a list). Everything is per
// item; `error` is fp32 in training, fp64 is taken for gradient checks. Optional tensors may stay undefined.
struct GroupErrors {
  at::Tensor error;      // [B, k] mean squared error under the policy, differentiable
  at::Tensor error_ref;  // [B, k] the same under the reference; taken as constant
  at::Tensor
      labels;  // [B, k] how good each item is, larger is better: 1 chosen / 0 rejected, or a preference value in [0, 1]
  at::Tensor scores;   // [B, k] reward model outputs
  at::Tensor weights;  // [B] factor of each group's loss, 1 where undefined

  // For the objectives that ask (ObjectiveInfo::needs_...), means over C,H,W like the errors.
  at::Tensor drift;         // [B, k] of (prediction - prediction_ref)^2, differentiable
  at::Tensor residual_dot;  // [B] of (prediction - target)_chosen * (prediction - target)_rejected, a pair's; constant.
                            // Under masks m each residual is the error's gradient, (prediction - target) m / mean m
  at::Tensor residual_square;  // [B, k] of the squares of the same; undefined without masks, where they are the errors
  at::Tensor prompt_distance;  // [B, B] 1 - cosine of the prompts' text states, averaged over tokens; constant

  // How the errors were made.
  LatentSource latent_source = LatentSource::kForwardNoise;
  bool has_item_prompts = false;  // each item was predicted under a prompt of its own
  bool is_masked = false;         // the errors are means weighted by a mask of each picture

  // Draws of the orthogonal options (losses/loss_options.h), [B] each.
  at::Tensor drop_margin;  // bool: the group's preference term is left out
  at::Tensor swap;         // bool: the two items of a pair change roles
  at::Tensor error_scale;  // factor of the errors, inside the objective's link function
};

}  // namespace prefusion::losses
