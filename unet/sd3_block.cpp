#include "unet/sd3_block.h"

#include <ATen/ATen.h>

#include <vector>

namespace prefusion::unet {
namespace {

constexpr const char* kFeedForward = "gelu-approximate";

// The branch behind the attention: states + gate * feed_forward(modulated norm of the states).
at::Tensor add_feed_forward(const at::Tensor& states, nn::FeedForward& feed_forward, const nn::Modulation& modulation) {
  return modulation.add_gated(states, feed_forward->forward(modulation.apply_to_norm(states)));
}

}  // namespace

SD3Block::SD3Block(const SD3Config& config, bool is_dual, bool is_last) : is_last_(is_last) {
  const int64_t dim = config.inner_dim();
  nn::JointAttentionOptions attention{.dim = dim,
                                      .num_heads = config.num_attention_heads,
                                      .head_dim = config.attention_head_dim,
                                      .has_context = true,
                                      .has_context_output = !is_last,
                                      .has_qk_norm = config.has_qk_norm};
  norm1 = register_module("norm1", nn::AdaLayerNormZero(dim, /*num_branches=*/is_dual ? 3 : 2));
  if (is_last) {
    norm1_last_context_ = register_module("norm1_context", nn::AdaLayerNormContinuous(dim, dim));
  } else {
    norm1_context_ = register_module("norm1_context", nn::AdaLayerNormZero(dim));
  }
  attn = register_module("attn", nn::JointAttention(attention));
  if (is_dual) {
    attention.has_context = false;
    attn2 = register_module("attn2", nn::JointAttention(attention));
  }
  ff = register_module("ff", nn::FeedForward(dim, kFeedForward));
  if (!is_last) ff_context = register_module("ff_context", nn::FeedForward(dim, kFeedForward));
}

nn::JointStates SD3Block::forward(const at::Tensor& hidden_states, const at::Tensor& context,
                                  const at::Tensor& embedding) {
  const std::vector<nn::Modulation> patch_modulation = norm1->forward(embedding);
  std::vector<nn::Modulation> context_modulation;
  at::Tensor normed_context;
  if (is_last_) {
    normed_context = norm1_last_context_->forward(context, embedding);
  } else {
    context_modulation = norm1_context_->forward(embedding);
    normed_context = context_modulation[0].apply_to_norm(context);
  }
  const nn::JointStates attended = attn->forward(patch_modulation[0].apply_to_norm(hidden_states), normed_context);

  nn::JointStates result{.hidden_states = patch_modulation[0].add_gated(hidden_states, attended.hidden_states)};
  if (attn2) {
    const nn::Modulation& dual = patch_modulation[2];
    const at::Tensor dual_attended = attn2->forward(dual.apply_to_norm(hidden_states)).hidden_states;
    result.hidden_states = dual.add_gated(result.hidden_states, dual_attended);
  }
  result.hidden_states = add_feed_forward(result.hidden_states, ff, patch_modulation[1]);
  if (is_last_) return result;
  result.context = context_modulation[0].add_gated(context, attended.context);
  result.context = add_feed_forward(result.context, ff_context, context_modulation[1]);
  return result;
}

}  // namespace prefusion::unet
