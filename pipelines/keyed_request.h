#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <string>
#include <vector>

#include "core/rng.h"
#include "pipelines/guided_denoiser.h"
#include "pipelines/text_to_image.h"

namespace prefusion::pipelines {

// One item to sample in training. Everything random about it is a function of `key` alone: it comes out the same in
// any batch, on any machine, at any time.
struct KeyedRequest {
  std::string prompt;
  std::string negative_prompt;
  DrawKey key;
};

// Standard normal noise [N, ...] fp32 on the CPU, a row for each request, from its draw number `draw`.
at::Tensor keyed_noise(std::span<const KeyedRequest> requests, uint64_t draw, at::IntArrayRef item_shape);

// A random number of the same kind for each request: int64 [N] in 0 .. count-1.
at::Tensor keyed_choice(std::span<const KeyedRequest> requests, uint64_t draw, int64_t count);

// What the requests' prompts and, under guidance, their negative prompts condition the denoiser on for pictures of that
// size; {0, 0} is the model's own.
GuidedConditioning encode_requests(TextToImage& pipeline, std::span<const KeyedRequest> requests,
                                   const GuidanceOptions& guidance, ImageSize size = {});

}  // namespace prefusion::pipelines
