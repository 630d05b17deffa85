#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <string>

#include "nn/activation_checkpoint.h"
#include "nn/attention.h"
#include "nn/feed_forward.h"
#include "nn/module_list.h"

namespace prefusion::nn {

struct TransformerBlockOptions {
  int64_t dim;
  int64_t num_heads;
  int64_t head_dim;
  int64_t cross_attention_dim = 0;    // 0: no second attention
  bool only_cross_attention = false;  // the first attention looks at the context too
  bool has_attention_bias = false;
  std::string feed_forward = "geglu";
  double norm_eps = 1e-5;
};

// Pre-norm block: attention to itself, attention to the context, feed-forward.
class TransformerBlockImpl : public torch::nn::Module {
 public:
  explicit TransformerBlockImpl(const TransformerBlockOptions& options);

  // hidden_states [B, N, dim], context [B, L, cross_attention_dim], user_states [B, M, user_dim] or undefined
  // -> [B, N, dim].
  at::Tensor forward(const at::Tensor& hidden_states, const at::Tensor& context, const at::Tensor& user_states = {});

 private:
  bool only_cross_attention_;
  LayerNorm norm1{nullptr}, norm2{nullptr}, norm3{nullptr};
  Attention attn1{nullptr}, attn2{nullptr};
  FeedForward ff{nullptr};
};
TORCH_MODULE(TransformerBlock);

struct Transformer2DOptions {
  int64_t channels;
  int64_t num_heads;
  int64_t head_dim;
  int64_t num_layers = 1;
  int64_t cross_attention_dim = 0;
  int64_t norm_num_groups = 32;
  bool use_linear_projection = false;  // proj_in and proj_out are linear layers instead of 1x1 convolutions
  bool only_cross_attention = false;
};

// Transformer blocks over the pixels of a feature map, with a residual around them all ("High-Resolution Image
// Synthesis with Latent Diffusion Models", arXiv 2112.10752).
class Transformer2DImpl : public torch::nn::Module {
 public:
  explicit Transformer2DImpl(const Transformer2DOptions& options);

  // hidden_states [B, C, H, W], context [B, L, cross_attention_dim], user_states [B, M, user_dim] or undefined
  // -> [B, C, H, W]. With `recompute` each block keeps only its input for the backward pass.
  at::Tensor forward(const at::Tensor& hidden_states, const at::Tensor& context, const at::Tensor& user_states = {},
                     const Recompute& recompute = false);

 private:
  bool use_linear_projection_;
  GroupNorm norm{nullptr};
  Conv2d conv_in_{nullptr}, conv_out_{nullptr};      // proj_in, proj_out as convolutions
  Linear linear_in_{nullptr}, linear_out_{nullptr};  // or as linear layers
  std::shared_ptr<ModuleList<TransformerBlock>> transformer_blocks;
};
TORCH_MODULE(Transformer2D);

}  // namespace prefusion::nn
