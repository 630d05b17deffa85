#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::pipelines {

// Classifier-free guidance ("Classifier-Free Diffusion Guidance", arXiv 2207.12598). Predictions [B, C, H, W].
struct GuidanceOptions {
  double scale = 7.5;    // 1 or less: no guidance
  double rescale = 0.0;  // arXiv 2305.08891, section 3.4: 0 off, 1 the spread of the unguided prediction

  bool is_active() const { return scale > 1.0; }
};

// `prediction` [2 B, C, H, W] holds the predictions for the negative prompts, then those for the prompts -> [B, C, H,
// W].
at::Tensor apply_guidance(const at::Tensor& prediction, const GuidanceOptions& options);

}  // namespace prefusion::pipelines
