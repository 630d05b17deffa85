#include "nn/transformer_block.h"

#include <ATen/ATen.h>

#include "nn/activation_checkpoint.h"

namespace prefusion::nn {

TransformerBlockImpl::TransformerBlockImpl(const TransformerBlockOptions& options)
    : only_cross_attention_(options.only_cross_attention) {
  const AttentionOptions attention{.query_dim = options.dim,
                                   .num_heads = options.num_heads,
                                   .head_dim = options.head_dim,
                                   .has_qkv_bias = options.has_attention_bias};
  norm1 = register_module("norm1", LayerNorm(options.dim, options.norm_eps));
  AttentionOptions first = attention;
  if (only_cross_attention_) first.cross_attention_dim = options.cross_attention_dim;
  attn1 = register_module("attn1", Attention(first));
  if (options.cross_attention_dim > 0) {
    norm2 = register_module("norm2", LayerNorm(options.dim, options.norm_eps));
    AttentionOptions second = attention;
    second.cross_attention_dim = options.cross_attention_dim;
    attn2 = register_module("attn2", Attention(second));
  }
  norm3 = register_module("norm3", LayerNorm(options.dim, options.norm_eps));
  ff = register_module("ff", FeedForward(options.dim, options.feed_forward));
}

at::Tensor TransformerBlockImpl::forward(const at::Tensor& hidden_states, const at::Tensor& context,
                                         const at::Tensor& user_states) {
  at::Tensor states =
      attn1->forward(norm1->forward(hidden_states), only_cross_attention_ ? context : at::Tensor(), user_states) +
      hidden_states;
  if (attn2) states = attn2->forward(norm2->forward(states), context, user_states) + states;
  return ff->forward(norm3->forward(states)) + states;
}

Transformer2DImpl::Transformer2DImpl(const Transformer2DOptions& options)
    : use_linear_projection_(options.use_linear_projection) {
  const int64_t inner_dim = options.num_heads * options.head_dim;
  norm = register_module("norm", GroupNorm(options.norm_num_groups, options.channels, 1e-6));
  if (use_linear_projection_) {
    linear_in_ = register_module("proj_in", Linear(options.channels, inner_dim));
    linear_out_ = register_module("proj_out", Linear(inner_dim, options.channels));
  } else {
    conv_in_ = register_module("proj_in", Conv2d(Conv2dOptions{options.channels, inner_dim, 1, 1, 0}));
    conv_out_ = register_module("proj_out", Conv2d(Conv2dOptions{inner_dim, options.channels, 1, 1, 0}));
  }
  transformer_blocks = register_module("transformer_blocks", std::make_shared<ModuleList<TransformerBlock>>());
  for (int64_t i = 0; i < options.num_layers; ++i) {
    transformer_blocks->push_back(
        TransformerBlock(TransformerBlockOptions{.dim = inner_dim,
                                                 .num_heads = options.num_heads,
                                                 .head_dim = options.head_dim,
                                                 .cross_attention_dim = options.cross_attention_dim,
                                                 .only_cross_attention = options.only_cross_attention}));
  }
}

at::Tensor Transformer2DImpl::forward(const at::Tensor& hidden_states, const at::Tensor& context,
                                      const at::Tensor& user_states, const Recompute& recompute) {
  const int64_t height = hidden_states.size(2);
  const int64_t width = hidden_states.size(3);
  const auto to_tokens = [](const at::Tensor& x) {  // [B, C, H, W] -> [B, H * W, C]
    return x.permute({0, 2, 3, 1}).flatten(1, 2);
  };
  const auto to_image = [&](const at::Tensor& x) {
    return x.view({x.size(0), height, width, x.size(2)})
        .permute({0, 3, 1, 2})
        .contiguous(hidden_states.suggest_memory_format());
  };

  at::Tensor states = norm->forward(hidden_states);
  states = use_linear_projection_ ? linear_in_->forward(to_tokens(states)) : to_tokens(conv_in_->forward(states));
  for (TransformerBlock& block : *transformer_blocks) {
    const auto run = [block](const std::vector<at::Tensor>& inputs) mutable {
      const auto input = [&](size_t i) { return i < inputs.size() ? inputs[i] : at::Tensor(); };
      return block->forward(inputs[0], input(1), input(2));
    };
    states = run_block(*block, run, {states, context, user_states}, recompute);
  }
  states = use_linear_projection_ ? to_image(linear_out_->forward(states)) : conv_out_->forward(to_image(states));
  return states + hidden_states;
}

}  // namespace prefusion::nn
