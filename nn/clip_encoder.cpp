#include "nn/clip_encoder.h"

#include <ATen/ATen.h>

#include <optional>

namespace prefusion::nn {
namespace {

class ClipAttentionImpl : public torch::nn::Module {
 public:
  explicit ClipAttentionImpl(const ClipEncoderOptions& options) : num_heads_(options.num_heads) {
    const int64_t dim = options.hidden_size;
    q_proj = register_module("q_proj", Linear(dim, dim));
    k_proj = register_module("k_proj", Linear(dim, dim));
    v_proj = register_module("v_proj", Linear(dim, dim));
    out_proj = register_module("out_proj", Linear(dim, dim));
  }

  at::Tensor forward(const at::Tensor& hidden_states, const AttentionMask& mask) {
    const auto heads = [&](Linear& projection) {  // [B, heads, L, D / heads]
      return projection(hidden_states).unflatten(-1, {num_heads_, -1}).transpose(1, 2);
    };
    const std::optional<at::Tensor> allowed = mask.allowed.defined() ? std::optional(mask.allowed) : std::nullopt;
    const at::Tensor attended =
        at::scaled_dot_product_attention(heads(q_proj), heads(k_proj), heads(v_proj), allowed,
                                         /*dropout_p=*/0.0, /*is_causal=*/mask.is_causal && !allowed.has_value());
    return out_proj(attended.transpose(1, 2).flatten(2));
  }

 private:
  int64_t num_heads_;
  Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, out_proj{nullptr};
};

class ClipMlpImpl : public torch::nn::Module {
 public:
  explicit ClipMlpImpl(const ClipEncoderOptions& options) : activation_(options.activation) {
    fc1 = register_module("fc1", Linear(options.hidden_size, options.intermediate_size));
    fc2 = register_module("fc2", Linear(options.intermediate_size, options.hidden_size));
  }
  at::Tensor forward(const at::Tensor& hidden_states) { return fc2(activation_(fc1(hidden_states))); }

 private:
  Activation activation_;
  Linear fc1{nullptr}, fc2{nullptr};
};

}  // namespace

class ClipEncoderLayerImpl : public torch::nn::Module {
 public:
  explicit ClipEncoderLayerImpl(const ClipEncoderOptions& options) {
    self_attn = register_module("self_attn", std::make_shared<ClipAttentionImpl>(options));
    layer_norm1 = register_module("layer_norm1", LayerNorm(options.hidden_size, options.layer_norm_eps));
    mlp = register_module("mlp", std::make_shared<ClipMlpImpl>(options));
    layer_norm2 = register_module("layer_norm2", LayerNorm(options.hidden_size, options.layer_norm_eps));
  }

  at::Tensor forward(const at::Tensor& input, const AttentionMask& mask) {
    const at::Tensor attended = input + self_attn->forward(layer_norm1(input), mask);
    return attended + mlp->forward(layer_norm2(attended));
  }

 private:
  std::shared_ptr<ClipAttentionImpl> self_attn;
  LayerNorm layer_norm1{nullptr}, layer_norm2{nullptr};
  std::shared_ptr<ClipMlpImpl> mlp;
};

ClipEncoderImpl::ClipEncoderImpl(const ClipEncoderOptions& options) : layers(std::make_shared<Layers>()) {
  for (int64_t i = 0; i < options.num_layers; ++i) layers->push_back(std::make_shared<ClipEncoderLayerImpl>(options));
  register_module("layers", layers);
}

at::Tensor ClipEncoderImpl::forward_layer(int64_t layer, const at::Tensor& hidden_states, const AttentionMask& mask) {
  return (*layers)[static_cast<size_t>(layer)]->forward(hidden_states, mask);
}

at::Tensor ClipEncoderImpl::forward(const at::Tensor& hidden_states, const AttentionMask& mask) {
  at::Tensor states = hidden_states;
  for (auto& layer : *layers) states = layer->forward(states, mask);
  return states;
}

}  // namespace prefusion::nn
