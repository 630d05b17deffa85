#pragma once

#include <cstdint>
#include <string>

#include "core/json_config.h"

namespace prefusion::text {

// The config.json of a CLIP text encoder; names and defaults are those of transformers' CLIPTextConfig.
struct ClipTextConfig {
  int64_t vocab_size = 49408;
  int64_t hidden_size = 512;
  int64_t intermediate_size = 2048;
  int64_t projection_dim = 512;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 8;
  int64_t max_position_embeddings = 77;
  std::string hidden_act = "quick_gelu";
  double layer_norm_eps = 1e-5;
  int64_t pad_token_id = 1;
  int64_t bos_token_id = 49406;
  // 2 stands for checkpoints made before transformers knew the id: the pooled position is then the highest token id's.
  int64_t eos_token_id = 49407;
  // Whether padding is hidden from attention; SD pipelines ask the config for it.
  bool use_attention_mask = false;
  // CLIPTextModelWithProjection, or a whole CLIPModel.
  bool has_projection = false;
};

// Parses a config.json: of CLIPTextModel, of CLIPTextModelWithProjection, or of a whole CLIPModel (its `text_config`).
// Input error naming the key for a value or key that is not supported.
ClipTextConfig parse_clip_text_config(const Json& json, const std::string& where);

// Input error naming what is out of range or does not fit together.
void check_clip_text_config(const ClipTextConfig& config, const std::string& where);

}  // namespace prefusion::text
