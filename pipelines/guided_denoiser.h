#pragma once

#include <ATen/core/Tensor.h>

#include "pipelines/guidance.h"
#include "unet/denoiser.h"

namespace prefusion::pipelines {

// What prompts and, under guidance, negative prompts condition the denoiser on: N rows of each.
struct GuidedConditioning {
  unet::Conditioning prompt;
  unet::Conditioning negative;  // empty without guidance
};

// The given rows (int64 [M], on the device of the states) of both.
GuidedConditioning select_rows(const GuidedConditioning& conditioning, const at::Tensor& rows);

// The guided prediction [N, C, h, w] for noisy_latents [N, C, h, w] at timesteps [N]: one denoiser call of 2 N rows,
// those of the negative prompts first, or of N rows without guidance.
at::Tensor predict_guided(unet::Denoiser& denoiser, const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                          const GuidedConditioning& conditioning, const GuidanceOptions& guidance);

}  // namespace prefusion::pipelines
