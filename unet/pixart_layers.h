#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/attention.h"
#include "nn/feed_forward.h"
#include "nn/layers.h"
#include "nn/timestep_embedding.h"
#include "unet/pixart_config.h"

namespace prefusion::unet {

// What modulates a pass.
struct PixArtModulation {
  at::Tensor embedding;    // [B, D] of timestep and size; of the output layer
  at::Tensor modulations;  // [B, 6, D] of all blocks
};

// adaLN-single ("PixArt-alpha", arXiv 2310.00426): one network on the timestep modulates all blocks, each of which only
// adds a table of its own. Parameters emb.timestep_embedder, emb.resolution_embedder, emb.aspect_ratio_embedder,
// linear.
class AdaLayerNormSingleImpl : public torch::nn::Module {
 public:
  AdaLayerNormSingleImpl(int64_t dim, bool has_size_conditions);

  // timesteps [B]; sizes [B, 3], height and width in pixels and height / width, where there are size conditions.
  // Computes in the dtype of its weights.
  PixArtModulation forward(const at::Tensor& timesteps, const at::Tensor& sizes);

 private:
  nn::TimestepEmbedding timestep_embedder_{nullptr}, resolution_embedder_{nullptr}, aspect_ratio_embedder_{nullptr};
  nn::Linear linear{nullptr};
};
TORCH_MODULE(AdaLayerNormSingle);

// What all blocks of one pass share.
struct PixArtInputs {
  at::Tensor modulations;  // [B, 6, D]
  at::Tensor text;         // [B, L, cross_attention_dim]
  at::Tensor text_bias;    // [B, 1, 1, L] added to the scores of the text, or undefined
  at::Tensor user_states;  // [B, M, U] or undefined
};

// Attention among the patches, attention to the text, feed-forward; the first and the last are modulated. There is no
// norm before the attention to the text.
class PixArtBlockImpl : public torch::nn::Module, public nn::InitializesItself {
 public:
  explicit PixArtBlockImpl(const PixArtConfig& config);
  at::Tensor forward(const at::Tensor& tokens, const PixArtInputs& inputs);  // [B, N, D] -> [B, N, D]
  void init_own_weights(at::Generator generator) override;

 private:
  double norm_eps_;
  at::Tensor scale_shift_table;                  // [6, D]: shift, scale and gate of attention, then of feed-forward
  nn::LayerNorm norm1{nullptr}, norm2{nullptr};  // null without weights of their own
  nn::Attention attn1{nullptr}, attn2{nullptr};
  nn::FeedForward ff{nullptr};
};
TORCH_MODULE(PixArtBlock);

// Draws a table [N, D] of shifts and scales as published: normal with deviation 1 / sqrt(D).
void init_scale_shift_table(at::Tensor& table, at::Generator generator);

}  // namespace prefusion::unet
