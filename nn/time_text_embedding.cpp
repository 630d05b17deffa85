#include "nn/time_text_embedding.h"

#include <ATen/ATen.h>

namespace prefusion::nn {
namespace {

constexpr int64_t kSinusoids = 256;

TimestepEmbedding two_layers(int64_t in_features, int64_t out_features) {
  return TimestepEmbedding(
      TimestepEmbeddingOptions{.in_features = in_features, .out_features = out_features, .activation = &silu});
}

}  // namespace

TimeTextEmbeddingImpl::TimeTextEmbeddingImpl(int64_t dim, int64_t pooled_dim, bool has_guidance) {
  timestep_embedder = register_module("timestep_embedder", two_layers(kSinusoids, dim));
  if (has_guidance) guidance_embedder = register_module("guidance_embedder", two_layers(kSinusoids, dim));
  text_embedder = register_module("text_embedder", two_layers(pooled_dim, dim));
}

at::Tensor TimeTextEmbeddingImpl::forward(const at::Tensor& timesteps, const at::Tensor& pooled,
                                          const at::Tensor& guidance) {
  const auto embed = [&](TimestepEmbedding& embedder, const at::Tensor& values) {
    return embedder->forward(sinusoidal_embedding(values, {.dim = kSinusoids}).to(pooled.scalar_type()));
  };
  at::Tensor embedding = embed(timestep_embedder, timesteps);
  if (guidance_embedder) embedding = embedding + embed(guidance_embedder, guidance);
  return embedding + text_embedder->forward(pooled);
}

}  // namespace prefusion::nn
