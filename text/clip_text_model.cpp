#include "text/clip_text_model.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/safetensors.h"
#include "nn/clip_encoder.h"

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

// Causal, and with padding hidden where there is a mask.
nn::AttentionMask attention_mask_of(const at::Tensor& attention_mask, int64_t length) {
  nn::AttentionMask mask{.is_causal = true};
  if (!attention_mask.defined()) return mask;
  const at::Tensor causal = at::ones({length, length}, attention_mask.options().dtype(at::kBool)).tril();
  mask.allowed = attention_mask.ne(0).unsqueeze(1).unsqueeze(1).logical_and(causal);
  return mask;
}

nn::ClipEncoderOptions encoder_options(const ClipTextConfig& config, const std::string& where) {
  return {.hidden_size = config.hidden_size,
          .intermediate_size = config.intermediate_size,
          .num_layers = config.num_hidden_layers,
          .num_heads = config.num_attention_heads,
          .layer_norm_eps = config.layer_norm_eps,
          .activation = nn::activation_by_name(config.hidden_act, where)};
}

}  // namespace

class ClipTextTransformerImpl : public torch::nn::Module {
 public:
  ClipTextTransformerImpl(const ClipTextConfig& config, const std::string& where) {
    embeddings = register_module("embeddings", std::make_shared<EmbeddingsImpl>(config));
    encoder = register_module("encoder", std::make_shared<nn::ClipEncoderImpl>(encoder_options(config, where)));
    final_layer_norm = register_module("final_layer_norm", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
  }
  std::shared_ptr<EmbeddingsImpl> embeddings;
  std::shared_ptr<nn::ClipEncoderImpl> encoder;
  nn::LayerNorm final_layer_norm{nullptr};
};

ClipTextModel::ClipTextModel(const ClipTextConfig& config, const std::string& where) : config_(config) {
  text_model = register_module("text_model", std::make_shared<ClipTextTransformerImpl>(config, where));
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
  const nn::AttentionMask mask = attention_mask_of(attention_mask, input_ids.size(1));
  ClipTextOutput output;
  output.hidden_states.push_back(text_model->embeddings->forward(input_ids));
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    output.hidden_states.push_back(text_model->encoder->forward_layer(layer, output.hidden_states.back(), mask));
  }
  output.last_hidden_state = final_layer_norm(output.hidden_states.back());
  output.pooled = pool(output.last_hidden_state, input_ids);
  if (text_projection) output.text_embeds = text_projection(output.pooled);
  return output;
}

at::Tensor ClipTextModel::text_embeds_of_each(const std::vector<at::Tensor>& input_ids) {
  std::vector<at::Tensor> states;
  for (const at::Tensor& ids : input_ids) states.push_back(text_model->embeddings->forward(ids));
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    text_model->encoder->forward_texts(layer, states);
    text_model->encoder->evict_layer(layer);
  }
  for (size_t i = 0; i < states.size(); ++i) {
    states[i] = text_projection(pool(final_layer_norm(states[i]), input_ids[i]));
  }
  return at::cat(states);
}

void ClipTextModel::set_gradient_checkpointing(bool enabled) {
  text_model->encoder->set_gradient_checkpointing(enabled);
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
