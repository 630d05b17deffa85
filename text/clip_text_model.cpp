#include "text/clip_text_model.h"

#include <ATen/ATen.h>

#include <optional>

#include "core/error.h"
#include "core/safetensors.h"
#include "nn/module_list.h"

namespace prefusion::text {
namespace {

class EmbeddingsImpl : public torch::nn::Module {
 public:
  explicit EmbeddingsImpl(const ClipTextConfig& config) {
    token_embedding = register_module("token_embedding", nn::Embedding(config.vocab_size, config.hidden_size));
    position_embedding =
        register_module("position_embedding", nn::Embedding(config.max_position_embeddings, config.hidden_size));
  }

  // [B, L] -> [B, L, D]
  at::Tensor forward(const at::Tensor& input_ids) {
    return token_embedding(input_ids) + position_embedding->weight.slice(0, 0, input_ids.size(1));
  }

 private:
  nn::Embedding token_embedding{nullptr};
  nn::Embedding position_embedding{nullptr};
};

class AttentionImpl : public torch::nn::Module {
 public:
  explicit AttentionImpl(const ClipTextConfig& config) : num_heads_(config.num_attention_heads) {
    const int64_t dim = config.hidden_size;
    q_proj = register_module("q_proj", nn::Linear(dim, dim));
    k_proj = register_module("k_proj", nn::Linear(dim, dim));
    v_proj = register_module("v_proj", nn::Linear(dim, dim));
    out_proj = register_module("out_proj", nn::Linear(dim, dim));
  }

  // hidden_states [B, L, D]; mask [B, 1, L, L], true where a query may look, or empty for plain causal attention.
  at::Tensor forward(const at::Tensor& hidden_states, const std::optional<at::Tensor>& mask) {
    const auto heads = [&](nn::Linear& projection) {  // [B, heads, L, D / heads]
      return projection(hidden_states).unflatten(-1, {num_heads_, -1}).transpose(1, 2);
    };
    const at::Tensor attended = at::scaled_dot_product_attention(heads(q_proj), heads(k_proj), heads(v_proj), mask,
                                                                 /*dropout_p=*/0.0, /*is_causal=*/!mask.has_value());
    return out_proj(attended.transpose(1, 2).flatten(2));
  }

 private:
  int64_t num_heads_;
  nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, out_proj{nullptr};
};

class MlpImpl : public torch::nn::Module {
 public:
  MlpImpl(const ClipTextConfig& config, nn::Activation activation) : activation_(activation) {
    fc1 = register_module("fc1", nn::Linear(config.hidden_size, config.intermediate_size));
    fc2 = register_module("fc2", nn::Linear(config.intermediate_size, config.hidden_size));
  }
  at::Tensor forward(const at::Tensor& hidden_states) { return fc2(activation_(fc1(hidden_states))); }

 private:
  nn::Activation activation_;
  nn::Linear fc1{nullptr}, fc2{nullptr};
};

class EncoderLayerImpl : public torch::nn::Module {
 public:
  EncoderLayerImpl(const ClipTextConfig& config, nn::Activation activation) {
    self_attn = register_module("self_attn", std::make_shared<AttentionImpl>(config));
    layer_norm1 = register_module("layer_norm1", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
    mlp = register_module("mlp", std::make_shared<MlpImpl>(config, activation));
    layer_norm2 = register_module("layer_norm2", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
  }

  at::Tensor forward(const at::Tensor& input, const std::optional<at::Tensor>& mask) {
    const at::Tensor attended = input + self_attn->forward(layer_norm1(input), mask);
    return attended + mlp->forward(layer_norm2(attended));
  }

 private:
  std::shared_ptr<AttentionImpl> self_attn;
  nn::LayerNorm layer_norm1{nullptr}, layer_norm2{nullptr};
  std::shared_ptr<MlpImpl> mlp;
};

class EncoderImpl : public torch::nn::Module {
 public:
  EncoderImpl(const ClipTextConfig& config, nn::Activation activation) {
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      layers->push_back(std::make_shared<EncoderLayerImpl>(config, activation));
    }
    register_module("layers", layers);
  }

  using Layers = nn::ModuleList<std::shared_ptr<EncoderLayerImpl>>;
  std::shared_ptr<Layers> layers = std::make_shared<Layers>();
};

// Causal and padding mask in one: bool [B, 1, L, L]; empty when there is no padding to hide.
std::optional<at::Tensor> attention_mask_of(const at::Tensor& attention_mask, int64_t length) {
  if (!attention_mask.defined()) return std::nullopt;
  const at::Tensor causal = at::ones({length, length}, attention_mask.options().dtype(at::kBool)).tril();
  return attention_mask.ne(0).unsqueeze(1).unsqueeze(1).logical_and(causal);
}

}  // namespace

class ClipTextTransformerImpl : public torch::nn::Module {
 public:
  ClipTextTransformerImpl(const ClipTextConfig& config, nn::Activation activation) {
    embeddings = register_module("embeddings", std::make_shared<EmbeddingsImpl>(config));
    encoder = register_module("encoder", std::make_shared<EncoderImpl>(config, activation));
    final_layer_norm = register_module("final_layer_norm", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
  }
  std::shared_ptr<EmbeddingsImpl> embeddings;
  std::shared_ptr<EncoderImpl> encoder;
  nn::LayerNorm final_layer_norm{nullptr};
};

ClipTextModel::ClipTextModel(const ClipTextConfig& config, const std::string& where) : config_(config) {
  const nn::Activation activation = nn::activation_by_name(config.hidden_act, where);
  text_model = register_module("text_model", std::make_shared<ClipTextTransformerImpl>(config, activation));
  if (config.has_projection) {
    text_projection =
        register_module("text_projection", nn::Linear(config.hidden_size, config.projection_dim, /*has_bias=*/false));
  }
}

ClipTextOutput ClipTextModel::forward(const at::Tensor& input_ids, const at::Tensor& attention_mask) {
  check_usage(input_ids.dim() == 2 && input_ids.size(1) >= 1 && input_ids.size(1) <= config_.max_position_embeddings,
              "CLIP text model: expected token ids [B, L] with L from 1 to ", config_.max_position_embeddings,
              ", found ", shape_text(input_ids.sizes()));
  check_usage(!attention_mask.defined() || attention_mask.sizes() == input_ids.sizes(),
              "CLIP text model: the attention mask must have the shape of the token ids");
  const std::optional<at::Tensor> mask = attention_mask_of(attention_mask, input_ids.size(1));
  ClipTextOutput output;
  output.hidden_states.push_back(text_model->embeddings->forward(input_ids));
  for (const auto& layer : *text_model->encoder->layers) {
    output.hidden_states.push_back(layer->forward(output.hidden_states.back(), mask));
  }
  output.last_hidden_state = final_layer_norm(output.hidden_states.back());
  output.pooled = pool(output.last_hidden_state, input_ids);
  if (text_projection) output.text_embeds = text_projection(output.pooled);
  return output;
}

at::Tensor ClipTextModel::final_layer_norm(const at::Tensor& hidden_states) {
  return text_model->final_layer_norm(hidden_states);
}

// The first end-of-text token of each row, or the first highest id where eos_token_id is the historical 2.
at::Tensor ClipTextModel::pool(const at::Tensor& last_hidden_state, const at::Tensor& input_ids) const {
  const at::Tensor score =
      config_.eos_token_id == 2 ? input_ids.to(at::kInt) : input_ids.eq(config_.eos_token_id).to(at::kInt);
  const at::Tensor position = score.argmax(-1);  // [B]
  return last_hidden_state.index({at::arange(input_ids.size(0), position.options()), position});
}

namespace {

// Brings the keys of all the layouts in which text encoders are saved to ours.
TensorMap public_names(const TensorMap& weights) {
  TensorMap named;
  for (const auto& [key, tensor] : weights) {
    std::string name = key;
    const bool is_unprefixed =
        name.starts_with("embeddings.") || name.starts_with("encoder.") || name.starts_with("final_layer_norm.");
    if (is_unprefixed) name = "text_model." + name;
    const bool is_picture_half =
        name.starts_with("vision_model.") || name.starts_with("visual_projection.") || name == "logit_scale";
    // Positions 0, 1, 2, ..., which transformers before 4.31 stored.
    if (is_picture_half || name == "text_model.embeddings.position_ids") continue;
    named.emplace(std::move(name), tensor);
  }
  return named;
}

}  // namespace

std::shared_ptr<ClipTextModel> load_clip_text_model(const std::filesystem::path& folder, at::ScalarType dtype,
                                                    at::Device device) {
  const std::filesystem::path config_path = folder / "config.json";
  ClipTextConfig config = parse_clip_text_config(read_json(config_path), config_path.string());
  const TensorMap weights = public_names(read_weights(folder, "model"));
  // Configs without `architectures` leave it to the weights.
  config.has_projection = config.has_projection || weights.contains("text_projection.weight");
  auto model = std::make_shared<ClipTextModel>(config, config_path.string());
  nn::load_module(*model, weights, dtype, device, folder.string());
  model->eval();
  return model;
}

std::shared_ptr<ClipTextModel> make_clip_text_model(const std::string& config_json, const std::string& where) {
  return std::make_shared<ClipTextModel>(parse_clip_text_config(parse_json(config_json, where), where), where);
}

}  // namespace prefusion::text
