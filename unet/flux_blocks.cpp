#include "unet/flux_blocks.h"

#include <ATen/ATen.h>

#include <vector>

namespace prefusion::unet {
namespace {

// The largest number of fp16: residuals that overflow it are cut, as the model's public code does.
at::Tensor within_half(const at::Tensor& states) {
  constexpr double kLargest = 65504;
  return states.scalar_type() == at::kHalf ? states.clamp(-kLargest, kLargest) : states;
}

// states + gate * attended, then the same for the feed-forward behind it.
at::Tensor finish_stream(const at::Tensor& states, const at::Tensor& attended,
                         const std::vector<nn::Modulation>& modulations, nn::FeedForward& feed_forward) {
  const at::Tensor mixed = modulations[0].add_gated(states, attended);
  return modulations[1].add_gated(mixed, feed_forward->forward(modulations[1].apply_to_norm(mixed)));
}

}  // namespace

FluxDoubleBlockImpl::FluxDoubleBlockImpl(int64_t num_heads, int64_t head_dim) {
  const int64_t dim = num_heads * head_dim;
  norm1 = register_module("norm1", nn::AdaLayerNormZero(dim));
  norm1_context = register_module("norm1_context", nn::AdaLayerNormZero(dim));
  attn = register_module(
      "attn", nn::JointAttention(nn::JointAttentionOptions{
                  .dim = dim, .num_heads = num_heads, .head_dim = head_dim, .has_context = true, .has_qk_norm = true}));
  ff = register_module("ff", nn::FeedForward(dim, "gelu-approximate"));
  ff_context = register_module("ff_context", nn::FeedForward(dim, "gelu-approximate"));
}

FluxStreams FluxDoubleBlockImpl::forward(const FluxStreams& streams, const at::Tensor& embedding,
                                         const nn::RotaryEmbedding& rotary) {
  const auto of_image = norm1->forward(embedding);
  const auto of_prompt = norm1_context->forward(embedding);
  const nn::JointStates attended =
      attn->forward(of_image[0].apply_to_norm(streams.image), of_prompt[0].apply_to_norm(streams.prompt), rotary);
  return {.image = finish_stream(streams.image, attended.hidden_states, of_image, ff),
          .prompt = within_half(finish_stream(streams.prompt, attended.context, of_prompt, ff_context))};
}

FluxSingleBlockImpl::FluxSingleBlockImpl(int64_t num_heads, int64_t head_dim) {
  const int64_t dim = num_heads * head_dim;
  const int64_t mlp_dim = 4 * dim;
  norm = register_module("norm", nn::AdaLayerNormZero(dim, /*num_branches=*/1));
  proj_mlp = register_module("proj_mlp", nn::Linear(dim, mlp_dim));
  proj_out = register_module("proj_out", nn::Linear(dim + mlp_dim, dim));
  attn = register_module(
      "attn", nn::JointAttention(nn::JointAttentionOptions{
                  .dim = dim, .num_heads = num_heads, .head_dim = head_dim, .has_output = false, .has_qk_norm = true}));
}

at::Tensor FluxSingleBlockImpl::forward(const at::Tensor& tokens, const at::Tensor& embedding,
                                        const nn::RotaryEmbedding& rotary) {
  const nn::Modulation modulation = norm->forward(embedding).front();
  const at::Tensor normed = modulation.apply_to_norm(tokens);
  const at::Tensor fed = at::gelu(proj_mlp->forward(normed), "tanh");
  const at::Tensor attended = attn->forward(normed, /*context=*/{}, rotary).hidden_states;
  const at::Tensor projected = proj_out->forward(at::cat({attended, fed}, /*dim=*/2));
  return within_half(modulation.add_gated(tokens, projected));
}

}  // namespace prefusion::unet
