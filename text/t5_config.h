#pragma once

#include <cstdint>
#include <string>

#include "core/json_config.h"

namespace prefusion::text {

// The config.json of a T5 encoder; names and defaults are those of transformers' T5Config.
struct T5Config {
  int64_t vocab_size = 32128;
  int64_t d_model = 512;
  int64_t d_kv = 64;  // width of a head; needs not be d_model / num_heads
  int64_t d_ff = 2048;
  int64_t num_layers = 6;
  int64_t num_heads = 8;
  int64_t relative_attention_num_buckets = 32;
  int64_t relative_attention_max_distance = 128;
  double layer_norm_epsilon = 1e-6;
  // Of `feed_forward_proj`: "relu" and "gated-gelu" are the two of the public checkpoints.
  std::string dense_act_fn = "relu";
  bool is_gated_act = false;
};

// Parses the config.json of T5EncoderModel, or of a whole T5 model, of which the encoder is taken. Input error naming
// the key for a value or key that is not supported.
T5Config parse_t5_config(const Json& json, const std::string& where);

}  // namespace prefusion::text
