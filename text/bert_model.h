#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "core/json_config.h"
#include "nn/layers.h"

namespace prefusion::text {

// The config of a BERT encoder whose every layer also attends to a picture, as BLIP (arXiv 2201.12086) has it
// ("med_config.json"); names and defaults are those of transformers' BertConfig.
struct BertConfig {
  int64_t vocab_size = 30522;
  int64_t hidden_size = 768;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 12;
  int64_t intermediate_size = 3072;
  std::string hidden_act = "gelu";
  int64_t max_position_embeddings = 512;
  double layer_norm_eps = 1e-12;
  // Width of the picture's tokens. BLIP sets it to its picture tower's, whatever the file says.
  int64_t encoder_width = 768;
};

// Input error naming the key for a value or key that is not supported.
BertConfig parse_bert_config(const Json& json, const std::string& where);

class BertEmbeddingsImpl;
class BertEncoderImpl;

// The encoder of such a config, in BLIP's multimodal mode. Checkpoint keys are its named_parameters():
// "embeddings.word_embeddings.weight", "encoder.layer.0.crossattention.self.query.weight" ...; there are no token
// types.
class BertModel : public torch::nn::Module {
 public:
  // Allocates the parameters without setting them. Input error for an unknown activation, naming `where`.
  BertModel(const BertConfig& config, const std::string& where);

  // input_ids: int64 [B, L], L at most max_position_embeddings; is_token: bool [B, L], false where there is padding;
  // encoder_hidden_states [B, M, encoder_width] -> [B, L, hidden_size].
  at::Tensor forward(const at::Tensor& input_ids, const at::Tensor& is_token, const at::Tensor& encoder_hidden_states);

  const BertConfig& config() const { return config_; }

 private:
  BertConfig config_;
  std::shared_ptr<BertEmbeddingsImpl> embeddings;
  std::shared_ptr<BertEncoderImpl> encoder;
};

}  // namespace prefusion::text
