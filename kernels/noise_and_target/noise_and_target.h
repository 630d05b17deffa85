#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/prediction_type.h"

namespace prefusion::kernels {

struct NoisyLatents {
  at::Tensor noisy_latents;  // [B, k, C, H, W], dtype of the latents
  at::Tensor target;         // [B, k, C, H, W] fp32, what the denoiser should predict
};

// Forward diffusion of a batch of groups, and the training target, in one pass:
//   noisy_latents = signal_scale * latents + noise_scale * noise
//   target        = noise (epsilon), signal_scale * noise - noise_scale * latents (v_prediction, arXiv 2202.00512),
//                   latents (sample) or noise - latents (flow)
// The k items of a group share one noise tensor. It is computed from counters and never stored: element j of [C, H, W]
// is lane j mod 4 of Philox block j / 4 of the group's stream, exactly what philox_randn([C, H, W]) gives for that
// stream. Arithmetic is fp32 whatever the latents' dtype.
//
//   latents       [B, k, C, H, W] fp32, bf16 or fp16, clean; data, so no gradient flows to it
//   streams       [B] int64: random_stream(DrawKey, RandomPurpose::kNoise) of each group; may stay on the CPU
//   signal_scale  [B, k] fp32: sqrt(abar_t), or 1 - t for flow
//   noise_scale   [B, k] fp32: sqrt(1 - abar_t), or t for flow
// Run error when a shape, dtype or device does not fit, or for CUDA tensors in a build without CUDA.
NoisyLatents noise_and_target(const at::Tensor& latents, const at::Tensor& streams, uint64_t seed,
                              const at::Tensor& signal_scale, const at::Tensor& noise_scale, PredictionType type);

// The noise that noise_and_target uses, materialised for traces and tests: [B, k, C, H, W] fp32 on the device of
// `streams`, equal along k. `shape` is [C, H, W].
at::Tensor group_noise(const at::Tensor& streams, uint64_t seed, at::IntArrayRef shape, int64_t k);

// Per-device implementations; noise_and_target.cpp checks the arguments and allocates. All tensors are contiguous and
// on one device, sizes agree.
namespace detail {

struct NoiseAndTargetArgs {
  at::Tensor latents, streams, signal_scale, noise_scale;  // as above
  at::Tensor noisy_latents, target;                        // outputs
  uint64_t seed = 0;
  PredictionType type = PredictionType::kEpsilon;
};

void noise_and_target_cpu(const NoiseAndTargetArgs& args);
void noise_and_target_cuda(const NoiseAndTargetArgs& args);

// Fills `noise` [B, k, C*H*W] fp32.
void group_noise_cpu(const at::Tensor& streams, uint64_t seed, at::Tensor& noise);
void group_noise_cuda(const at::Tensor& streams, uint64_t seed, at::Tensor& noise);

}  // namespace detail
}  // namespace prefusion::kernels
