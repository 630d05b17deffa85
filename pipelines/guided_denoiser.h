#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "pipelines/guidance.h"
#include "unet/denoiser.h"

namespace prefusion::nn {
class LoraAdapter;
}

namespace prefusion::pipelines {

// What prompts and, under guidance, negative prompts condition the denoiser on: N rows of each.
struct GuidedConditioning {
  unet::Conditioning prompt;
  unet::Conditioning negative;  // empty without guidance
};

// Adapters of the denoiser that act for prompts alone, and for negative prompts alone: guidance away from what another
// network draws ("Diffusion-NPO: Negative Preference Optimization for Better Preference Aligned Generation of Diffusion
// Models", arXiv 2505.11245).
struct BranchAdapters {
  std::vector<std::shared_ptr<nn::LoraAdapter>> prompt;
  std::vector<std::shared_ptr<nn::LoraAdapter>> negative;

  bool empty() const { return prompt.empty() && negative.empty(); }
};

// The given rows (int64 [M], on the device of the states) of both.
GuidedConditioning select_rows(const GuidedConditioning& conditioning, const at::Tensor& rows);

// The predictions [2 N, C, h, w] that apply_guidance takes, for noisy_latents [N, C, h, w] at timesteps [N]: one
// denoiser call of 2 N rows, those of the negative prompts first; where adapters act on one side alone, two of N rows.
at::Tensor predict_both(unet::Denoiser& denoiser, const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                        const GuidedConditioning& conditioning, const BranchAdapters& adapters = {});

// The prediction for the prompts without guidance: one denoiser call of N rows.
at::Tensor predict_prompt(unet::Denoiser& denoiser, const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                          const GuidedConditioning& conditioning, const BranchAdapters& adapters = {});

// The guided prediction [N, C, h, w]; without guidance that for the prompts.
at::Tensor predict_guided(unet::Denoiser& denoiser, const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                          const GuidedConditioning& conditioning, const GuidanceOptions& guidance);

}  // namespace prefusion::pipelines
