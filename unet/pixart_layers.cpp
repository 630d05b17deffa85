#include "unet/pixart_layers.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>

#include "nn/ada_layer_norm.h"

namespace prefusion::unet {
namespace {

constexpr int64_t kSinusoids = 256;
constexpr int64_t kModulations = 6;

nn::TimestepEmbedding embedder(int64_t out_features) {
  return nn::TimestepEmbedding(
      nn::TimestepEmbeddingOptions{.in_features = kSinusoids, .out_features = out_features, .activation = &nn::silu});
}

at::Tensor embed(nn::TimestepEmbedding& network, const at::Tensor& values) {
  const at::Tensor sinusoids = nn::sinusoidal_embedding(values.flatten(), {.dim = kSinusoids});
  return network->forward(sinusoids.to(network->linear_1->weight.scalar_type()));
}

at::Tensor modulated(const nn::Modulation& modulation, nn::LayerNorm& norm, const at::Tensor& tokens, double eps) {
  return norm ? modulation.apply(norm->forward(tokens)) : modulation.apply_to_norm(tokens, eps);
}

}  // namespace

AdaLayerNormSingleImpl::AdaLayerNormSingleImpl(int64_t dim, bool has_size_conditions) {
  const auto emb = register_module("emb", std::make_shared<torch::nn::Module>());
  timestep_embedder_ = emb->register_module("timestep_embedder", embedder(dim));
  if (has_size_conditions) {
    resolution_embedder_ = emb->register_module("resolution_embedder", embedder(dim / 3));
    aspect_ratio_embedder_ = emb->register_module("aspect_ratio_embedder", embedder(dim / 3));
  }
  linear = register_module("linear", nn::Linear(dim, kModulations * dim));
}

PixArtModulation AdaLayerNormSingleImpl::forward(const at::Tensor& timesteps, const at::Tensor& sizes) {
  at::Tensor embedding = embed(timestep_embedder_, timesteps);
  if (resolution_embedder_) {
    const int64_t batch = timesteps.size(0);
    const at::Tensor resolution = embed(resolution_embedder_, sizes.narrow(1, 0, 2)).reshape({batch, -1});
    const at::Tensor aspect_ratio = embed(aspect_ratio_embedder_, sizes.narrow(1, 2, 1));
    embedding = embedding + at::cat({resolution, aspect_ratio}, /*dim=*/1);
  }
  const at::Tensor modulations = linear->forward(at::silu(embedding));
  return {.embedding = embedding, .modulations = modulations.unflatten(1, {kModulations, -1})};
}

PixArtBlockImpl::PixArtBlockImpl(const PixArtConfig& config) : norm_eps_(config.norm_eps) {
  const int64_t dim = config.inner_dim();
  nn::AttentionOptions attention{.query_dim = dim,
                                 .num_heads = config.num_heads,
                                 .head_dim = config.head_dim,
                                 .has_qkv_bias = config.attention_bias};
  scale_shift_table = register_parameter("scale_shift_table", at::empty({kModulations, dim}, at::kFloat));
  if (config.norm_elementwise_affine) {
    norm1 = register_module("norm1", nn::LayerNorm(dim, norm_eps_));
    norm2 = register_module("norm2", nn::LayerNorm(dim, norm_eps_));
  }
  attn1 = register_module("attn1", nn::Attention(attention));
  attention.cross_attention_dim = config.cross_attention_dim;
  attn2 = register_module("attn2", nn::Attention(attention));
  ff = register_module("ff", nn::FeedForward(dim, config.activation));
}

at::Tensor PixArtBlockImpl::forward(const at::Tensor& tokens, const PixArtInputs& inputs) {
  const std::vector<at::Tensor> parts = (scale_shift_table + inputs.modulations).chunk(kModulations, /*dim=*/1);
  const nn::Modulation first{.shift = parts[0], .scale = parts[1], .gate = parts[2]};
  const nn::Modulation last{.shift = parts[3], .scale = parts[4], .gate = parts[5]};
  at::Tensor states = first.add_gated(tokens, attn1->forward(modulated(first, norm1, tokens, norm_eps_)));
  states = attn2->forward(states, inputs.text, inputs.user_states, inputs.text_bias) + states;
  return last.add_gated(states, ff->forward(modulated(last, norm2, states, norm_eps_)));
}

void PixArtBlockImpl::init_own_weights(at::Generator generator) {
  init_scale_shift_table(scale_shift_table, generator);
}

void init_scale_shift_table(at::Tensor& table, at::Generator generator) {
  table.normal_(0.0, 1.0 / std::sqrt(static_cast<double>(table.size(1))), generator);
}

}  // namespace prefusion::unet
