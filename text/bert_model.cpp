#include "text/bert_model.h"

#include <ATen/ATen.h>

#include <optional>

#include "core/error.h"
#include "core/transformers_config.h"
#include "nn/module_list.h"

namespace prefusion::text {
namespace {

void check_sizes(const BertConfig& config, const std::string& where) {
  const auto positive = [&](const char* key, int64_t value) {
    check_input(value > 0 && value < (int64_t{1} << 31), where, ": '", key, "' = ", value, " is out of range");
  };
  positive("vocab_size", config.vocab_size);
  positive("hidden_size", config.hidden_size);
  positive("num_attention_heads", config.num_attention_heads);
  positive("intermediate_size", config.intermediate_size);
  positive("max_position_embeddings", config.max_position_embeddings);
  positive("encoder_width", config.encoder_width);
  check_input(config.num_hidden_layers >= 0 && config.num_hidden_layers <= 1024, where,
              ": 'num_hidden_layers' = ", config.num_hidden_layers, " is out of range");
  check_input(config.hidden_size % config.num_attention_heads == 0, where, ": 'hidden_size' = ", config.hidden_size,
              " does not divide into 'num_attention_heads' = ", config.num_attention_heads);
}

// "self" of an attention: queries from one sequence, keys and values from another.
class SelfImpl : public torch::nn::Module {
 public:
  SelfImpl(const BertConfig& config, int64_t context_width) : num_heads_(config.num_attention_heads) {
    query = register_module("query", nn::Linear(config.hidden_size, config.hidden_size));
    key = register_module("key", nn::Linear(context_width, config.hidden_size));
    value = register_module("value", nn::Linear(context_width, config.hidden_size));
  }

  // [B, L, D], [B, M, E], mask bool [B, 1, 1, M] or undefined -> [B, L, D]
  at::Tensor forward(const at::Tensor& hidden_states, const at::Tensor& context, const at::Tensor& allowed) {
    const auto heads = [&](const at::Tensor& states) {  // [B, heads, L, D / heads]
      return states.unflatten(-1, {num_heads_, -1}).transpose(1, 2);
    };
    const std::optional<at::Tensor> mask = allowed.defined() ? std::optional(allowed) : std::nullopt;
    const at::Tensor attended =
        at::scaled_dot_product_attention(heads(query(hidden_states)), heads(key(context)), heads(value(context)), mask);
    return attended.transpose(1, 2).flatten(2);
  }

 private:
  int64_t num_heads_;
  nn::Linear query{nullptr}, key{nullptr}, value{nullptr};
};

// "output" of an attention or feed-forward: projection, then the norm of its sum with the residual.
class OutputImpl : public torch::nn::Module {
 public:
  OutputImpl(const BertConfig& config, int64_t in_features) {
    dense = register_module("dense", nn::Linear(in_features, config.hidden_size));
    LayerNorm = register_module("LayerNorm", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
  }
  at::Tensor forward(const at::Tensor& states, const at::Tensor& residual) {
    return LayerNorm(dense(states) + residual);
  }

 private:
  nn::Linear dense{nullptr};
  nn::LayerNorm LayerNorm{nullptr};
};

class BertAttentionImpl : public torch::nn::Module {
 public:
  BertAttentionImpl(const BertConfig& config, int64_t context_width) {
    self = register_module("self", std::make_shared<SelfImpl>(config, context_width));
    output = register_module("output", std::make_shared<OutputImpl>(config, config.hidden_size));
  }
  at::Tensor forward(const at::Tensor& hidden_states, const at::Tensor& context, const at::Tensor& allowed) {
    return output->forward(self->forward(hidden_states, context, allowed), hidden_states);
  }

 private:
  std::shared_ptr<SelfImpl> self;
  std::shared_ptr<OutputImpl> output;
};

class IntermediateImpl : public torch::nn::Module {
 public:
  IntermediateImpl(const BertConfig& config, nn::Activation activation) : activation_(activation) {
    dense = register_module("dense", nn::Linear(config.hidden_size, config.intermediate_size));
  }
  at::Tensor forward(const at::Tensor& hidden_states) { return activation_(dense(hidden_states)); }

 private:
  nn::Activation activation_;
  nn::Linear dense{nullptr};
};

class BertLayerImpl : public torch::nn::Module {
 public:
  BertLayerImpl(const BertConfig& config, nn::Activation activation) {
    attention = register_module("attention", std::make_shared<BertAttentionImpl>(config, config.hidden_size));
    crossattention =
        register_module("crossattention", std::make_shared<BertAttentionImpl>(config, config.encoder_width));
    intermediate = register_module("intermediate", std::make_shared<IntermediateImpl>(config, activation));
    output = register_module("output", std::make_shared<OutputImpl>(config, config.intermediate_size));
  }

  at::Tensor forward(const at::Tensor& hidden_states, const at::Tensor& allowed, const at::Tensor& picture) {
    const at::Tensor read = attention->forward(hidden_states, hidden_states, allowed);
    const at::Tensor seen = crossattention->forward(read, picture, {});
    return output->forward(intermediate->forward(seen), seen);
  }

 private:
  std::shared_ptr<BertAttentionImpl> attention;
  std::shared_ptr<BertAttentionImpl> crossattention;
  std::shared_ptr<IntermediateImpl> intermediate;
  std::shared_ptr<OutputImpl> output;
};

}  // namespace

BertConfig parse_bert_config(const Json& json, const std::string& where) {
  BertConfig config;
  ConfigReader reader(json, where);
  reader.only<std::string>("model_type", "bert");
  reader.only<std::string>("position_embedding_type", "absolute");
  config.vocab_size = reader.get("vocab_size", config.vocab_size);
  config.hidden_size = reader.get("hidden_size", config.hidden_size);
  config.num_hidden_layers = reader.get("num_hidden_layers", config.num_hidden_layers);
  config.num_attention_heads = reader.get("num_attention_heads", config.num_attention_heads);
  config.intermediate_size = reader.get("intermediate_size", config.intermediate_size);
  config.hidden_act = reader.get("hidden_act", config.hidden_act);
  config.max_position_embeddings = reader.get("max_position_embeddings", config.max_position_embeddings);
  config.layer_norm_eps = reader.get("layer_norm_eps", config.layer_norm_eps);
  config.encoder_width = reader.get("encoder_width", config.encoder_width);
  const bool has_cross_attention = reader.get("add_cross_attention", false);
  if (!has_cross_attention) reader.refuse("add_cross_attention", false);
  ignore_transformers_keys(reader);
  // Dropout acts in training alone; the embeddings have no token types; padding is told apart by a mask.
  reader.ignore({"architectures", "attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout",
                 "type_vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "use_cache",
                 "gradient_checkpointing"});
  reader.finish();
  check_sizes(config, where);
  return config;
}

class BertEmbeddingsImpl : public torch::nn::Module {
 public:
  explicit BertEmbeddingsImpl(const BertConfig& config) {
    word_embeddings = register_module("word_embeddings", nn::Embedding(config.vocab_size, config.hidden_size));
    position_embeddings =
        register_module("position_embeddings", nn::Embedding(config.max_position_embeddings, config.hidden_size));
    LayerNorm = register_module("LayerNorm", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
  }

  // [B, L] -> [B, L, D]
  at::Tensor forward(const at::Tensor& input_ids) {
    return LayerNorm(word_embeddings(input_ids) + position_embeddings->weight.slice(0, 0, input_ids.size(1)));
  }

 private:
  nn::Embedding word_embeddings{nullptr};
  nn::Embedding position_embeddings{nullptr};
  nn::LayerNorm LayerNorm{nullptr};
};

class BertEncoderImpl : public torch::nn::Module {
 public:
  BertEncoderImpl(const BertConfig& config, const std::string& where) : layer(std::make_shared<Layers>()) {
    const nn::Activation activation = nn::activation_by_name(config.hidden_act, where);
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      layer->push_back(std::make_shared<BertLayerImpl>(config, activation));
    }
    register_module("layer", layer);
  }

  using Layers = nn::ModuleList<std::shared_ptr<BertLayerImpl>>;
  std::shared_ptr<Layers> layer;
};

BertModel::BertModel(const BertConfig& config, const std::string& where) : config_(config) {
  embeddings = register_module("embeddings", std::make_shared<BertEmbeddingsImpl>(config));
  encoder = register_module("encoder", std::make_shared<BertEncoderImpl>(config, where));
}

at::Tensor BertModel::forward(const at::Tensor& input_ids, const at::Tensor& is_token,
                              const at::Tensor& encoder_hidden_states) {
  check_usage(input_ids.dim() == 2 && input_ids.size(1) >= 1 && input_ids.size(1) <= config_.max_position_embeddings,
              "BERT model: expected token ids [B, L] with L from 1 to ", config_.max_position_embeddings, ", found ",
              shape_text(input_ids.sizes()));
  at::Tensor states = embeddings->forward(input_ids);
  const at::Tensor allowed = is_token.unsqueeze(1).unsqueeze(1);  // [B, 1, 1, L]
  for (auto& layer : *encoder->layer) states = layer->forward(states, allowed, encoder_hidden_states);
  return states;
}

}  // namespace prefusion::text
