#include "unet/dit_block.h"

#include <ATen/ATen.h>

namespace prefusion::unet {
namespace {

constexpr int64_t kSinusoids = 256;
constexpr double kFreqShift = 1;

}  // namespace

TimestepClassEmbeddingImpl::TimestepClassEmbeddingImpl(int64_t num_classes, int64_t dim) {
  timestep_embedder = register_module("timestep_embedder",
                                      nn::TimestepEmbedding(nn::TimestepEmbeddingOptions{
                                          .in_features = kSinusoids, .out_features = dim, .activation = &nn::silu}));
  const auto embedder = register_module("class_embedder", std::make_shared<torch::nn::Module>());
  embedding_table = embedder->register_module("embedding_table", nn::Embedding(num_classes + 1, dim));
}

at::Tensor TimestepClassEmbeddingImpl::forward(const at::Tensor& timesteps, const at::Tensor& classes) {
  const at::ScalarType dtype = embedding_table->weight.scalar_type();
  const at::Tensor sinusoids = nn::sinusoidal_embedding(timesteps, {.dim = kSinusoids, .freq_shift = kFreqShift});
  // One product by one and zeros otherwise: the row of the table, exactly.
  return timestep_embedder->forward(sinusoids.to(dtype)) + classes.to(dtype).matmul(embedding_table->weight);
}

ClassAdaLayerNormZeroImpl::ClassAdaLayerNormZeroImpl(int64_t num_classes, int64_t dim) : AdaLayerNormZeroImpl(dim) {
  emb = register_module("emb", TimestepClassEmbedding(num_classes, dim));
}

DitBlockImpl::DitBlockImpl(const DitConfig& config) : norm_eps_(config.norm_eps) {
  const int64_t dim = config.inner_dim();
  norm1 = register_module("norm1", ClassAdaLayerNormZero(config.num_classes, dim));
  attn1 = register_module("attn1", nn::Attention(nn::AttentionOptions{.query_dim = dim,
                                                                      .num_heads = config.num_heads,
                                                                      .head_dim = config.head_dim,
                                                                      .has_qkv_bias = config.attention_bias}));
  if (config.norm_elementwise_affine) norm3 = register_module("norm3", nn::LayerNorm(dim, norm_eps_));
  ff = register_module("ff", nn::FeedForward(dim, config.activation));
}

at::Tensor DitBlockImpl::forward(const at::Tensor& tokens, const at::Tensor& timesteps, const at::Tensor& classes) {
  const std::vector<nn::Modulation> branches = norm1->forward(norm1->emb->forward(timesteps, classes));
  const at::Tensor attended = attn1->forward(branches[0].apply_to_norm(tokens));
  const at::Tensor states = branches[0].add_gated(tokens, attended);
  const at::Tensor modulated =
      norm3 ? branches[1].apply(norm3->forward(states)) : branches[1].apply_to_norm(states, norm_eps_);
  return branches[1].add_gated(states, ff->forward(modulated));
}

}  // namespace prefusion::unet
