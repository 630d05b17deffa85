#include "text/t5_encoder_model.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <optional>

#include "core/error.h"
#include "core/torch_file.h"
#include "nn/frozen_weights.h"
#include "nn/module_list.h"

namespace prefusion::text {
namespace {

// Scales by the root of the mean square, which is taken in fp32; no mean is subtracted.
class T5LayerNormImpl : public torch::nn::Module {
 public:
  T5LayerNormImpl(int64_t dim, double eps) : eps_(eps) { weight = register_parameter("weight", at::empty({dim})); }

  // Takes states of any dtype, gives states in that of the weight.
  at::Tensor forward(const at::Tensor& states) {
    const at::Tensor variance = states.to(at::kFloat).pow(2).mean(-1, /*keepdim=*/true);
    return weight * (states * at::rsqrt(variance + eps_)).to(weight.scalar_type());
  }

 private:
  at::Tensor weight;
  double eps_;
};

// Which bucket every distance falls into, [L, L]: one of its own for small ones, then buckets that widen with the
// logarithm, one half of all for keys before the query and one for those behind. In fp32 as in transformers, where
// rounding decides on which side of a bound a distance falls.
at::Tensor distance_buckets(int64_t length, const T5Config& config) {
  const at::Tensor positions = at::arange(length, at::kLong);
  const at::Tensor distance = positions.unsqueeze(0) - positions.unsqueeze(1);  // of the key from the query
  const int64_t num_buckets = config.relative_attention_num_buckets / 2;
  const int64_t num_exact = num_buckets / 2;
  const double log_range =
      std::log(static_cast<double>(config.relative_attention_max_distance) / static_cast<double>(num_exact));
  const at::Tensor magnitude = distance.abs();
  const at::Tensor share = at::log(magnitude.to(at::kFloat) / num_exact) / log_range;
  const at::Tensor wide = ((share * (num_buckets - num_exact)).to(at::kLong) + num_exact).clamp_max(num_buckets - 1);
  return (distance > 0).to(at::kLong) * num_buckets + at::where(magnitude < num_exact, magnitude, wide);
}

class SelfAttentionImpl : public torch::nn::Module {
 public:
  SelfAttentionImpl(const T5Config& config, bool has_bias) : config_(config) {
    const int64_t inner = config.num_heads * config.d_kv;
    q = register_module("q", nn::Linear(config.d_model, inner, /*has_bias=*/false));
    k = register_module("k", nn::Linear(config.d_model, inner, /*has_bias=*/false));
    v = register_module("v", nn::Linear(config.d_model, inner, /*has_bias=*/false));
    o = register_module("o", nn::Linear(inner, config.d_model, /*has_bias=*/false));
    if (has_bias) {
      relative_attention_bias = register_module("relative_attention_bias",
                                                nn::Embedding(config.relative_attention_num_buckets, config.num_heads));
    }
  }

  // What is added to the scores by distance: [1, heads, L, L]
  at::Tensor position_bias(int64_t length) {
    const at::Tensor buckets = distance_buckets(length, config_).to(relative_attention_bias->weight.device());
    return relative_attention_bias(buckets).permute({2, 0, 1}).unsqueeze(0);
  }

  // states [B, L, D], bias [B or 1, heads, L, L] -> [B, L, D]
  at::Tensor forward(const at::Tensor& states, const at::Tensor& bias) {
    const auto heads = [&](nn::Linear& linear) {  // [B, heads, L, d_kv]
      return linear(states).unflatten(-1, {config_.num_heads, config_.d_kv}).transpose(1, 2);
    };
    const at::Tensor attended = at::scaled_dot_product_attention(heads(q), heads(k), heads(v), bias, /*dropout_p=*/0.0,
                                                                 /*is_causal=*/false, /*scale=*/1.0);
    return o(attended.transpose(1, 2).flatten(2));
  }

 private:
  T5Config config_;
  nn::Linear q{nullptr}, k{nullptr}, v{nullptr}, o{nullptr};
  nn::Embedding relative_attention_bias{nullptr};
};

class DenseReluDenseImpl : public torch::nn::Module {
 public:
  DenseReluDenseImpl(const T5Config& config, nn::Activation activation) : activation_(activation) {
    const auto input = [&](const char* name) {
      return register_module(name, nn::Linear(config.d_model, config.d_ff, /*has_bias=*/false));
    };
    wi = input(config.is_gated_act ? "wi_0" : "wi");
    if (config.is_gated_act) gate = input("wi_1");
    wo = register_module("wo", nn::Linear(config.d_ff, config.d_model, /*has_bias=*/false));
  }

  at::Tensor forward(const at::Tensor& states) {
    at::Tensor hidden = activation_(wi(states));
    if (gate) hidden = hidden * gate(states);
    return wo(hidden.to(wo->compute_dtype()));
  }

 private:
  nn::Activation activation_;
  nn::Linear wi{nullptr}, gate{nullptr}, wo{nullptr};
};

class AttentionLayerImpl : public torch::nn::Module {
 public:
  AttentionLayerImpl(const T5Config& config, bool has_bias) {
    SelfAttention = register_module("SelfAttention", std::make_shared<SelfAttentionImpl>(config, has_bias));
    layer_norm =
        register_module("layer_norm", std::make_shared<T5LayerNormImpl>(config.d_model, config.layer_norm_epsilon));
  }
  std::shared_ptr<SelfAttentionImpl> SelfAttention;
  std::shared_ptr<T5LayerNormImpl> layer_norm;
};

class FeedForwardLayerImpl : public torch::nn::Module {
 public:
  FeedForwardLayerImpl(const T5Config& config, nn::Activation activation) {
    DenseReluDense = register_module("DenseReluDense", std::make_shared<DenseReluDenseImpl>(config, activation));
    layer_norm =
        register_module("layer_norm", std::make_shared<T5LayerNormImpl>(config.d_model, config.layer_norm_epsilon));
  }
  std::shared_ptr<DenseReluDenseImpl> DenseReluDense;
  std::shared_ptr<T5LayerNormImpl> layer_norm;
};

double largest_value(at::ScalarType dtype) {
  if (dtype == at::kHalf) return static_cast<float>(std::numeric_limits<at::Half>::max());
  if (dtype == at::kBFloat16) return static_cast<float>(std::numeric_limits<at::BFloat16>::max());
  return std::numeric_limits<float>::max();
}

// Where fp16 overflowed, states are brought back to a little below its largest value.
at::Tensor without_infinities(const at::Tensor& states) {
  if (states.scalar_type() != at::kHalf) return states;
  const double largest = largest_value(at::kHalf);
  const at::Tensor bound = at::where(states.isinf().any(), largest - 1000, largest);
  return at::clamp(states, -bound, bound);
}

class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(const T5Config& config, nn::Activation activation, bool has_bias) {
    // The two are of different kinds, so that no ModuleList holds them.
    const auto layer = register_module("layer", std::make_shared<torch::nn::Module>());
    attention = layer->register_module("0", std::make_shared<AttentionLayerImpl>(config, has_bias));
    feed_forward = layer->register_module("1", std::make_shared<FeedForwardLayerImpl>(config, activation));
  }

  at::Tensor forward(at::Tensor states, const at::Tensor& bias) {
    states = states + attention->SelfAttention->forward(attention->layer_norm->forward(states), bias);
    states = without_infinities(states);
    states = states + feed_forward->DenseReluDense->forward(feed_forward->layer_norm->forward(states));
    return without_infinities(states);
  }

  std::shared_ptr<AttentionLayerImpl> attention;
  std::shared_ptr<FeedForwardLayerImpl> feed_forward;
};

}  // namespace

class T5StackImpl : public torch::nn::Module {
 public:
  T5StackImpl(const T5Config& config, const std::string& where) : block(std::make_shared<Blocks>()) {
    const nn::Activation activation = nn::activation_by_name(config.dense_act_fn, where);
    for (int64_t i = 0; i < config.num_layers; ++i) {
      block->push_back(std::make_shared<BlockImpl>(config, activation, /*has_bias=*/i == 0));
    }
    register_module("block", block);
    final_layer_norm = register_module("final_layer_norm",
                                       std::make_shared<T5LayerNormImpl>(config.d_model, config.layer_norm_epsilon));
  }

  // states [B, L, D], attention_mask [B, L] or undefined -> [B, L, D]
  at::Tensor forward(at::Tensor states, const at::Tensor& attention_mask) {
    at::Tensor bias = (*block->begin())->attention->SelfAttention->position_bias(states.size(1));
    if (attention_mask.defined()) {
      // Not minus infinity: a row of nothing but padding attends to all of it evenly.
      const double lowest = -largest_value(bias.scalar_type());
      bias = at::where(attention_mask.ne(0).unsqueeze(1).unsqueeze(1), bias, lowest);
    }
    bias = bias.contiguous();
    for (auto& layer : *block) states = layer->forward(states, bias);
    return final_layer_norm->forward(states);
  }

 private:
  using Blocks = nn::ModuleList<std::shared_ptr<BlockImpl>>;
  std::shared_ptr<Blocks> block;
  std::shared_ptr<T5LayerNormImpl> final_layer_norm;
};

T5EncoderModel::T5EncoderModel(const T5Config& config, const std::string& where) : config_(config) {
  shared = register_module("shared", nn::Embedding(config.vocab_size, config.d_model));
  encoder = register_module("encoder", std::make_shared<T5StackImpl>(config, where));
}

at::Tensor T5EncoderModel::forward(const at::Tensor& input_ids, const at::Tensor& attention_mask) {
  check_usage(input_ids.dim() == 2 && input_ids.size(1) >= 1, "T5 encoder: expected token ids [B, L], found ",
              shape_text(input_ids.sizes()));
  check_usage(!attention_mask.defined() || attention_mask.sizes() == input_ids.sizes(),
              "T5 encoder: the attention mask must have the shape of the token ids");
  return encoder->forward(shared(input_ids), attention_mask);
}

namespace {

// The encoder's weights under our names. Where the embeddings are there under both of theirs, the encoder's own count.
TensorMap public_names(const TensorMap& weights) {
  TensorMap named;
  for (const auto& [key, tensor] : weights) {
    const bool is_other_half = key.starts_with("decoder.") || key.starts_with("lm_head.");
    if (!is_other_half) named.emplace(key, tensor);
  }
  if (const auto own = named.extract("encoder.embed_tokens.weight")) named["shared.weight"] = own.mapped();
  return named;
}

bool stays_fp32(const std::string& name) {
  return name.ends_with(".wo.weight");
}

at::ScalarType dtype_of(const std::string& name, at::ScalarType dtype) {
  return dtype == at::kHalf && stays_fp32(name) ? at::kFloat : dtype;
}

void load_weights(T5EncoderModel& model, const TensorMap& weights, at::ScalarType dtype, at::Device device,
                  const std::string& where) {
  const std::vector<NamedTensor> destination = nn::named_tensors(model);
  check_weights(destination, weights, where);
  for (const NamedTensor& tensor : destination) {
    const TensorMap source = {{tensor.name, weights.at(tensor.name)}};
    load_weights_strict({tensor}, source, dtype_of(tensor.name, dtype), device, where);
  }
}

}  // namespace

at::ScalarType T5EncoderModel::dtype_of(const std::string& name) const {
  return text::dtype_of(name, dtype());
}

std::shared_ptr<T5EncoderModel> load_t5_encoder_model(const std::filesystem::path& folder, at::ScalarType dtype,
                                                      at::Device device, bool streams_weights) {
  const std::filesystem::path config_path = folder / "config.json";
  const T5Config config = parse_t5_config(read_json(config_path), config_path.string());
  const TensorMap weights = public_names(read_any_weights(folder, "model"));
  auto model = std::make_shared<T5EncoderModel>(config, config_path.string());
  if (streams_weights) {
    nn::load_module(*model, weights, /*dtype=*/std::nullopt, at::kCPU, folder.string());
    nn::stream_frozen_weights(
        *model, [&](const std::string& name) { return dtype_of(name, dtype); }, device);
  } else {
    load_weights(*model, weights, dtype, device, folder.string());
  }
  model->eval();
  return model;
}

std::shared_ptr<T5EncoderModel> make_t5_encoder_model(const std::string& config_json, const std::string& where) {
  return std::make_shared<T5EncoderModel>(parse_t5_config(parse_json(config_json, where), where), where);
}

}  // namespace prefusion::text
