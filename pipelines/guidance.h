#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>

namespace prefusion::pipelines {

// The part of a run that guidance acts in ("Applying Guidance in a Limited Interval Improves Sample and Distribution
// Quality in Diffusion Models", arXiv 2404.07724), as shares of the denoiser calls that are made: 0 is the first, of
// the highest noise. Calls outside are not guided and cost half.
struct GuidanceInterval {
  double begin = 0.0;
  double end = 1.0;

  // Whether call number `call` of `count` is guided: floor(begin count) <= call < floor(end count), the rule of
  // diffusers' guiders.
  bool contains(size_t call, size_t count) const;
};

// Classifier-free guidance ("Classifier-Free Diffusion Guidance", arXiv 2207.12598). Predictions [B, C, H, W].
struct GuidanceOptions {
  double scale = 7.5;    // 1 or less: no guidance
  double rescale = 0.0;  // arXiv 2305.08891, section 3.4: 0 off, 1 the spread of the unguided prediction
  GuidanceInterval interval;
  double mimic_scale = 0.0;       // above 0: clean latents get the range they have at this scale (limit_range)
  double mimic_percentile = 1.0;  // share of pixels that must fit into it

  bool is_active() const { return scale > 1.0; }
};

// `prediction` [2 B, C, H, W] holds the predictions for the negative prompts, then those for the prompts -> [B, C, H,
// W].
at::Tensor apply_guidance(const at::Tensor& prediction, const GuidanceOptions& options);

// Dynamic thresholding for latents, which know no fixed range ("Imagen", arXiv 2205.11487, section 2.3, has pixels; the
// mimic form is that of the sd-dynamic-thresholding extension). For each item and channel of the predicted clean
// latents [B, C, H, W], with mean m over the pixels, q the `percentile` quantile of |guided - m|, r the largest
// |modest - mean(modest)| and s = max(q, r):  m + clamp(guided - m, -s, s) r / s.
at::Tensor limit_range(const at::Tensor& guided, const at::Tensor& modest, double percentile);

}  // namespace prefusion::pipelines
