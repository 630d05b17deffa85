#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/ada_layer_norm.h"
#include "nn/feed_forward.h"
#include "nn/joint_attention.h"
#include "nn/layers.h"
#include "nn/rotary_embedding.h"

// The two kinds of blocks of FLUX.1. Both normalise queries and keys and turn them by the positions of their tokens,
// the prompt's first.
namespace prefusion::unet {

struct FluxStreams {
  at::Tensor image;   // [B, N, D]
  at::Tensor prompt;  // [B, L, D]
};

// FluxTransformerBlock: image and prompt keep streams of their own that meet in the attention.
class FluxDoubleBlockImpl : public torch::nn::Module {
 public:
  FluxDoubleBlockImpl(int64_t num_heads, int64_t head_dim);

  // `embedding` [B, D] of timestep, pooled text and guidance; `rotary` of L + N tokens.
  FluxStreams forward(const FluxStreams& streams, const at::Tensor& embedding, const nn::RotaryEmbedding& rotary);

 private:
  nn::AdaLayerNormZero norm1{nullptr}, norm1_context{nullptr};
  nn::JointAttention attn{nullptr};
  nn::FeedForward ff{nullptr}, ff_context{nullptr};
};
TORCH_MODULE(FluxDoubleBlock);

// FluxSingleTransformerBlock: attention and feed-forward side by side over all tokens of one stream, with one
// projection behind both.
class FluxSingleBlockImpl : public torch::nn::Module {
 public:
  FluxSingleBlockImpl(int64_t num_heads, int64_t head_dim);

  // tokens [B, L + N, D], embedding [B, D], rotary of L + N tokens -> [B, L + N, D].
  at::Tensor forward(const at::Tensor& tokens, const at::Tensor& embedding, const nn::RotaryEmbedding& rotary);

 private:
  nn::AdaLayerNormZero norm{nullptr};
  nn::Linear proj_mlp{nullptr}, proj_out{nullptr};
  nn::JointAttention attn{nullptr};
};
TORCH_MODULE(FluxSingleBlock);

}  // namespace prefusion::unet
