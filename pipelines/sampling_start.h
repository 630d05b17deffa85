#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pipelines/text_to_image.h"

namespace prefusion::pipelines {

// Standard normal noise of the shape, dtype and device of `like`, every item from its own generator. Drawn in fp32 on
// the CPU, so that a picture's noise is the same on every device and in every dtype.
at::Tensor draw_noise(const std::vector<at::Generator>& generators, const at::Tensor& like);

// Where sampling begins.
struct SamplingStart {
  at::Tensor latents;          // [B, C, h, w]
  size_t first_call = 0;       // of the scheduler's: the calls before it are left out
  at::Tensor mask;             // [1, 1, h, w], 1 where the picture is repainted; undefined: everywhere
  at::Tensor picture_latents;  // [B, C, h, w], what stays where the mask is 0; undefined where the denoiser is told
  at::Tensor noise;            // [B, C, h, w], that brings picture_latents to the level of a call
  at::Tensor added_channels;   // [B, M + C, h, w], what an inpainting denoiser is told: mask and masked picture

  // These items of the batch alone (int64 [M], on the device of the latents).
  void keep_items(const at::Tensor& items);
};

// The latents that sampling starts from, in dtype and device of `like`: noise, or the start picture brought to the
// noise level that its strength asks for, as the img2img and inpainting pipelines of diffusers do it and with their
// draws in their order. `scheduler` has its timesteps. Usage error for a strength that leaves no step, for a mask
// without a picture, and for an inpainting model without a mask.
SamplingStart start_sampling(const TextToImage& pipeline, const schedulers::Scheduler& scheduler,
                             const GenerateOptions& options, const std::vector<at::Generator>& generators,
                             const at::Tensor& like);

// How many of the steps a strength leaves out, by the rule of the family's img2img pipeline.
int64_t skipped_steps(ModelFamily family, int64_t num_inference_steps, double strength);

}  // namespace prefusion::pipelines
