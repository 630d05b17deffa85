#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "pipelines/keyed_request.h"
#include "pipelines/text_to_image.h"

namespace prefusion::pipelines {

struct BackpropOptions {
  int64_t num_inference_steps = 50;
  GuidanceOptions guidance;
  std::vector<int64_t>
      gradient_steps;     // whose predictions carry gradients; evenly_spaced_steps, or of any other choice
  int64_t height_px = 0;  // 0: the model's own size
  int64_t width_px = 0;
};

// Every n-th step from a random offset below n: ascending indices below num_inference_steps. LongAlign takes every 10th
// of 50. Usage error unless 1 <= every <= num_inference_steps.
std::vector<int64_t> evenly_spaced_steps(int64_t num_inference_steps, int64_t every, const DrawKey& key);

// Deterministic steps (DDIM, or Euler's of a flow model) from noise to clean latents [N, C, h, w] fp32 that know how
// the denoiser's weights made them, for rewards that can be differentiated ("Improving Long-Text Alignment for
// Text-to-Image Diffusion Models", arXiv 2410.11817). The denoiser's input is detached at every step, so that a
// gradient passes through one prediction only and then along the sampler's linear path: it neither explodes over the
// steps nor needs the network's derivative with respect to its input. Each chosen prediction is recomputed in the
// backward pass, which holds the activations of one denoiser call at a time; the denoiser must not be changed in
// between. AutoencoderKL::decode takes the result to pixels, with its gradient.
//
// Initial latents are those of sample_trajectories. Usage error for steps that do not exist.
at::Tensor sample_with_gradient(TextToImage& pipeline, std::span<const KeyedRequest> requests,
                                const BackpropOptions& options);

}  // namespace prefusion::pipelines
