#include "nn/timestep_embedding.h"

#include <ATen/ATen.h>

#include <cmath>

namespace prefusion::nn {

at::Tensor sinusoidal_embedding(const at::Tensor& timesteps, const SinusoidalOptions& options) {
  const int64_t half = options.dim / 2;
  const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(timesteps.device());
  const at::Tensor exponent =
      at::arange(half, fp32) * -std::log(10000.0) / (static_cast<double>(half) - options.freq_shift);
  const at::Tensor phase = timesteps.to(at::kFloat).unsqueeze(1) * at::exp(exponent).unsqueeze(0);
  const at::Tensor sines = at::sin(phase);
  const at::Tensor cosines = at::cos(phase);
  at::Tensor embedding =
      options.flip_sin_to_cos ? at::cat({cosines, sines}, /*dim=*/1) : at::cat({sines, cosines}, /*dim=*/1);
  if (options.dim % 2 == 1) embedding = at::constant_pad_nd(embedding, {0, 1});
  return embedding;
}

TimestepEmbeddingImpl::TimestepEmbeddingImpl(const TimestepEmbeddingOptions& options)
    : activation_(options.activation), post_activation_(options.post_activation) {
  linear_1 = register_module("linear_1", Linear(options.in_features, options.out_features));
  linear_2 = register_module("linear_2", Linear(options.out_features, options.out_features));
}

at::Tensor TimestepEmbeddingImpl::forward(const at::Tensor& embedding) {
  const at::Tensor output = linear_2->forward(activation_(linear_1->forward(embedding)));
  return post_activation_ ? post_activation_(output) : output;
}

}  // namespace prefusion::nn
