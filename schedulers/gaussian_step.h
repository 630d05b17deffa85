#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::schedulers {

// One denoising step as a distribution: x_prev is normal around `mean` with the same deviation in all elements of an
// item.
struct GaussianStep {
  at::Tensor mean;  // [N, ...] fp32 (fp64 for fp64 predictions), differentiable in the prediction
  at::Tensor std;   // [N], same dtype; 0 where the step is deterministic
};

// mean + std * noise. noise [N, ...] of any float dtype.
at::Tensor draw(const GaussianStep& step, const at::Tensor& noise);

// MEAN over the elements of an item of the log-density of `next` [N, ...]:
//   -(next - mean)^2 / (2 std^2) - log std - log(2 pi) / 2     -> [N]
// The policy-gradient family (DDPO, D3PO, SPO, Flow-GRPO, DanceGRPO) averages where the density of an item would be the
// sum, and its clip ranges mean ratios of this average. Differentiable in step.mean. A deterministic step has no
// density: the result is not finite where std is 0. Run error when `next` requires a gradient.
at::Tensor mean_log_prob(const GaussianStep& step, const at::Tensor& next);

// KL divergence between normals of equal deviation, averaged over the elements of an item in the same way:
//   mean (mean - mean_ref)^2 / (2 std^2)     -> [N]
// Differentiable in `mean`; run error when mean_ref requires a gradient.
at::Tensor mean_kl(const at::Tensor& mean, const at::Tensor& mean_ref, const at::Tensor& std);

}  // namespace prefusion::schedulers
