#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::kernels {

// next = keep * sample + move * prediction: a sampler's step of first order without noise.
struct LinearStep {
  double keep = 1;
  double move = 0;
};

struct GuidedStep {
  at::Tensor guided;  // [B, ...] negative + scale (positive - negative)
  at::Tensor next;    // [B, ...] the step along it
};

// Classifier-free guidance ("Classifier-Free Diffusion Guidance", arXiv 2207.12598) and the step along the guided
// prediction, in one pass. `both` [2 B, ...] holds the predictions for negative prompts, then those for prompts;
// `sample` [B, ...] has its dtype (fp32, bf16, fp16 or fp64; computed in fp32 at least, each result rounded once) and
// device. There is no gradient.
GuidedStep guided_step(const at::Tensor& both, const at::Tensor& sample, double scale, const LinearStep& step);

// Per-device implementations; guided_step() checks and allocates. All tensors are dense and in one order.
namespace detail {

struct GuidedStepTensors {
  at::Tensor both, sample, guided, next;
  double scale;
  LinearStep step;
};

void guided_step_cpu(GuidedStepTensors& tensors);
void guided_step_cuda(GuidedStepTensors& tensors);

}  // namespace detail
}  // namespace prefusion::kernels
