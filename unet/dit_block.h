#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <memory>

#include "nn/ada_layer_norm.h"
#include "nn/attention.h"
#include "nn/feed_forward.h"
#include "nn/layers.h"
#include "nn/timestep_embedding.h"
#include "unet/dit_config.h"

namespace prefusion::unet {

// The embedding of timestep and class; every block has one of its own. Parameters timestep_embedder and
// class_embedder.embedding_table.
class TimestepClassEmbeddingImpl : public torch::nn::Module {
 public:
  TimestepClassEmbeddingImpl(int64_t num_classes, int64_t dim);

  // timesteps [B]; classes [B, num_classes + 1], a one for the class (the last: none) -> [B, dim], in the dtype of the
  // weights.
  at::Tensor forward(const at::Tensor& timesteps, const at::Tensor& classes);

 private:
  nn::TimestepEmbedding timestep_embedder{nullptr};
  nn::Embedding embedding_table{nullptr};
};
TORCH_MODULE(TimestepClassEmbedding);

// adaLN-Zero on that embedding: `emb` beside `linear`.
class ClassAdaLayerNormZeroImpl : public nn::AdaLayerNormZeroImpl {
 public:
  ClassAdaLayerNormZeroImpl(int64_t num_classes, int64_t dim);

  TimestepClassEmbedding emb{nullptr};
};
TORCH_MODULE(ClassAdaLayerNormZero);

// Attention among the patches and feed-forward, both modulated.
class DitBlockImpl : public torch::nn::Module {
 public:
  explicit DitBlockImpl(const DitConfig& config);

  // tokens [B, N, D], timesteps and classes as TimestepClassEmbedding takes them -> [B, N, D]
  at::Tensor forward(const at::Tensor& tokens, const at::Tensor& timesteps, const at::Tensor& classes);

  ClassAdaLayerNormZero norm1{nullptr};

 private:
  double norm_eps_;
  nn::LayerNorm norm3{nullptr};  // null without weights of its own
  nn::Attention attn1{nullptr};
  nn::FeedForward ff{nullptr};
};
TORCH_MODULE(DitBlock);

}  // namespace prefusion::unet
