#include "reward_models/mps_cross_model.h"

#include <ATen/ATen.h>

#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "nn/layers.h"

namespace prefusion::reward_models {
namespace {

// [N, T, heads * d] -> [N, heads, T, d]
at::Tensor split_heads(const at::Tensor& states, int64_t num_heads) {
  return states.unflatten(-1, {num_heads, -1}).transpose(1, 2);
}

// queries [N, heads, T, d]; the one key and value head [N, L, d] serves all of them -> [N, T, heads * d]
at::Tensor attend(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                  const std::optional<at::Tensor>& allowed) {
  const auto shared = [&](const at::Tensor& head) { return head.unsqueeze(1).expand({-1, queries.size(1), -1, -1}); };
  return at::scaled_dot_product_attention(queries, shared(keys), shared(values), allowed).transpose(1, 2).flatten(2);
}

// value * silu(gate)
at::Tensor swiglu(const at::Tensor& states) {
  const std::vector<at::Tensor> parts = states.chunk(2, -1);
  return parts[0] * at::silu(parts[1]);
}

// Rotates states [..., T, d] by their positions, the two halves of d being the coordinates; angles in fp32.
at::Tensor rotate(const at::Tensor& states) {
  const int64_t half = states.size(-1) / 2;
  const at::TensorOptions options = states.options().dtype(at::kFloat);
  const at::Tensor frequencies = at::pow(10000.0, at::arange(half, options) / static_cast<double>(half)).reciprocal();
  const at::Tensor angles = at::outer(at::arange(states.size(-2), options), frequencies);  // [T, d / 2]
  const at::Tensor cos = angles.cos().to(states.scalar_type());
  const at::Tensor sin = angles.sin().to(states.scalar_type());
  const at::Tensor x = states.slice(-1, 0, half);
  const at::Tensor y = states.slice(-1, half);
  return at::cat({x * cos - y * sin, y * cos + x * sin}, -1);
}

class SequentialLinears : public torch::nn::Module {
 public:
  // name -> linear layer, among activations that have no parameters.
  explicit SequentialLinears(const std::vector<std::pair<const char*, nn::Linear>>& linears) {
    for (const auto& [name, linear] : linears) layers.push_back(register_module(name, linear));
  }
  std::vector<nn::Linear> layers;
};

class CrossAttentionImpl : public torch::nn::Module {
 public:
  explicit CrossAttentionImpl(const MpsCrossConfig& config) : num_heads_(config.num_heads) {
    const int64_t inner = config.num_heads * config.head_dim;
    norm = register_module("norm", nn::LayerNorm(config.width));
    to_q = register_module("to_q", nn::Linear(config.width, inner, /*has_bias=*/false));
    to_kv = register_module("to_kv", nn::Linear(config.width, 2 * config.head_dim, /*has_bias=*/false));
    to_out = register_module("to_out", nn::Linear(inner, config.width, /*has_bias=*/false));
    const std::vector<std::pair<const char*, nn::Linear>> linears = {
        {"0", nn::Linear(config.width, 2 * config.ff_width, /*has_bias=*/false)},
        {"2", nn::Linear(config.ff_width, config.width, /*has_bias=*/false)}};
    ff = register_module("ff", std::make_shared<SequentialLinears>(linears));
  }

  at::Tensor forward(const at::Tensor& picture_tokens, const at::Tensor& prompt_tokens, const at::Tensor& allowed) {
    const at::Tensor normed = norm(picture_tokens);
    const std::vector<at::Tensor> kv = to_kv(prompt_tokens).chunk(2, -1);
    const at::Tensor attended = attend(split_heads(to_q(normed), num_heads_), kv[0], kv[1], allowed);
    return to_out(attended) + ff->layers[1](swiglu(ff->layers[0](normed)));
  }

 private:
  int64_t num_heads_;
  nn::LayerNorm norm{nullptr};
  nn::Linear to_q{nullptr}, to_kv{nullptr}, to_out{nullptr};
  std::shared_ptr<SequentialLinears> ff;
};

class ParallelBlockImpl : public torch::nn::Module {
 public:
  explicit ParallelBlockImpl(const MpsCrossConfig& config)
      : num_heads_(config.num_heads),
        fused_widths_{config.num_heads * config.head_dim, config.head_dim, config.head_dim, 2 * config.ff_width} {
    const int64_t fused = fused_widths_[0] + 2 * config.head_dim + fused_widths_[3];
    norm = register_module("norm", nn::LayerNorm(config.width));
    fused_attn_ff_proj = register_module("fused_attn_ff_proj", nn::Linear(config.width, fused, /*has_bias=*/false));
    attn_out = register_module("attn_out", nn::Linear(fused_widths_[0], config.width, /*has_bias=*/false));
    const std::vector<std::pair<const char*, nn::Linear>> linears = {
        {"1", nn::Linear(config.ff_width, config.width, /*has_bias=*/false)}};
    ff_out = register_module("ff_out", std::make_shared<SequentialLinears>(linears));
  }

  at::Tensor forward(const at::Tensor& tokens) {
    const std::vector<at::Tensor> parts = fused_attn_ff_proj(norm(tokens)).split_with_sizes(fused_widths_, -1);
    const at::Tensor queries = rotate(split_heads(parts[0], num_heads_));
    return attn_out(attend(queries, rotate(parts[1]), parts[2], std::nullopt)) + ff_out->layers[0](swiglu(parts[3]));
  }

 private:
  int64_t num_heads_;
  std::vector<int64_t> fused_widths_;  // queries, key, value, feed-forward
  nn::LayerNorm norm{nullptr};
  nn::Linear fused_attn_ff_proj{nullptr}, attn_out{nullptr};
  std::shared_ptr<SequentialLinears> ff_out;
};

// Gives a module the name "fn" that the public code's residual wrapper gives it.
template <typename Inner>
class ResidualImpl : public torch::nn::Module {
 public:
  explicit ResidualImpl(const MpsCrossConfig& config) { fn = register_module("fn", std::make_shared<Inner>(config)); }
  template <typename... Context>
  at::Tensor forward(const at::Tensor& tokens, const Context&... context) {
    return tokens + fn->forward(tokens, context...);
  }

 private:
  std::shared_ptr<Inner> fn;
};

const at::Tensor& matrix(const TensorMap& weights, const std::string& name, const std::string& where) {
  const auto found = weights.find(name);
  check_input(found != weights.end() && found->second.dim() == 2 && found->second.numel() > 0, where,
              ": the weights have no matrix 'cross_model.", name, "', so they are no MPS model");
  return found->second;
}

}  // namespace

MpsCrossConfig mps_cross_config_of(const TensorMap& weights, const std::string& where) {
  MpsCrossConfig config;
  const at::Tensor& to_q = matrix(weights, "layers.0.0.fn.to_q.weight", where);
  config.width = to_q.size(1);
  config.head_dim = matrix(weights, "layers.0.0.fn.to_kv.weight", where).size(0) / 2;
  config.ff_width = matrix(weights, "layers.0.0.fn.ff.2.weight", where).size(1);
  check_input(config.head_dim > 0 && config.head_dim % 2 == 0 && to_q.size(0) % config.head_dim == 0, where,
              ": 'cross_model.layers.0.0.fn' has ", to_q.size(0), " query channels, which do not divide into heads of ",
              config.head_dim);
  config.num_heads = to_q.size(0) / config.head_dim;
  config.num_layers = 0;
  while (weights.contains(concat("layers.", config.num_layers, ".0.fn.to_q.weight"))) ++config.num_layers;
  return config;
}

class MpsCrossLayerImpl : public torch::nn::Module {
 public:
  explicit MpsCrossLayerImpl(const MpsCrossConfig& config) {
    cross = register_module("0", std::make_shared<ResidualImpl<CrossAttentionImpl>>(config));
    among_themselves = register_module("1", std::make_shared<ResidualImpl<ParallelBlockImpl>>(config));
  }

  at::Tensor forward(const at::Tensor& tokens, const at::Tensor& prompt_tokens, const at::Tensor& allowed) {
    return among_themselves->forward(cross->forward(tokens, prompt_tokens, allowed));
  }

 private:
  std::shared_ptr<ResidualImpl<CrossAttentionImpl>> cross;
  std::shared_ptr<ResidualImpl<ParallelBlockImpl>> among_themselves;
};

MpsCrossModel::MpsCrossModel(const MpsCrossConfig& config) : config_(config), layers(std::make_shared<Layers>()) {
  for (int64_t i = 0; i < config.num_layers; ++i) layers->push_back(std::make_shared<MpsCrossLayerImpl>(config));
  register_module("layers", layers);
}

at::Tensor MpsCrossModel::forward(const at::Tensor& picture_tokens, const at::Tensor& prompt_tokens,
                                  const at::Tensor& is_seen) {
  const at::Tensor allowed = is_seen.unsqueeze(1).unsqueeze(1);  // [N, 1, 1, L]
  at::Tensor tokens = picture_tokens;
  for (auto& layer : *layers) tokens = layer->forward(tokens, prompt_tokens, allowed);
  return tokens;
}

}  // namespace prefusion::reward_models
