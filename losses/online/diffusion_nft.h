#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// What a forward-process objective sees: B prompts with k samples each, noised again and denoised once by each policy.
// Predictions are given as the clean latents they imply (x_t - t v for a velocity v), so that it does not matter what
// the model predicts. `denoised` and `drift` are differentiable, the rest is taken as constant.
struct ForwardBatch {
  at::Tensor denoised;      // [B, k, C, H, W] under the policy
  at::Tensor denoised_old;  // [B, k, C, H, W] under the policy that sampled
  at::Tensor latents;       // [B, k, C, H, W] the samples
  at::Tensor advantage;     // [B, k]
  at::Tensor drift;         // [B, k] mean over C,H,W of (prediction - prediction_ref)^2; needed for kl_weight > 0
};

// DiffusionNFT ("DiffusionNFT: Online Diffusion Reinforcement with Forward Process", arXiv 2509.16117), the mean over
// the samples of
//   advantage_clip / beta * (r * l(x+) + (1 - r) * l(x-)) + kl_weight * drift
//   x+ = beta * denoised + (1 - beta) * denoised_old,  x- = (1 + beta) * denoised_old - beta * denoised
//   l(x) = mean (x - latents)^2 / w,  w = max(mean |x - latents|, 1e-5) without gradient
//   r = clamp(advantage / advantage_clip, -1, 1) / 2 + 1/2
// beta is kappa (1 or 0.1), advantage_clip 5, kl_weight 1e-4. Run error when a tensor is missing or of another shape.
// [B]
at::Tensor diffusion_nft_loss(const ForwardBatch& batch, const ObjectiveParams& params);

}  // namespace prefusion::losses
