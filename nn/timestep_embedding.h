#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <string>

#include "nn/layers.h"

namespace prefusion::nn {

// Sines and cosines of geometrically spaced frequencies ("Denoising Diffusion Probabilistic Models", arXiv 2006.11239).
struct SinusoidalOptions {
  int64_t dim = 320;            // an odd dim is padded with one zero
  bool flip_sin_to_cos = true;  // cosines first
  double freq_shift = 0;        // frequency i is 10000^(-i / (dim/2 - freq_shift))
};

// timesteps [N] of any dtype -> fp32 [N, dim].
at::Tensor sinusoidal_embedding(const at::Tensor& timesteps, const SinusoidalOptions& options);

struct TimestepEmbeddingOptions {
  int64_t in_features;
  int64_t out_features;
  Activation activation;
  Activation post_activation = nullptr;  // none when null
};

// The two-layer network behind the sinusoids: [N, in] -> [N, out].
class TimestepEmbeddingImpl : public torch::nn::Module {
 public:
  explicit TimestepEmbeddingImpl(const TimestepEmbeddingOptions& options);
  at::Tensor forward(const at::Tensor& embedding);

  Linear linear_1{nullptr}, linear_2{nullptr};

 private:
  Activation activation_;
  Activation post_activation_;
};
TORCH_MODULE(TimestepEmbedding);

}  // namespace prefusion::nn
