#pragma once

#include <cstdint>
#include <string>

#include "core/json_config.h"

namespace prefusion::unet {

// config.json of DiTTransformer2DModel, and of the Transformer2DModel that DiT folders of before mid-2024 name.
struct DitConfig {
  int64_t in_channels = 4;
  int64_t out_channels = 4;  // twice in_channels where the variance is learnt
  int64_t num_layers = 28;
  int64_t num_heads = 16;
  int64_t head_dim = 72;
  int64_t sample_size = 32;  // latent height and width
  int64_t patch_size = 2;
  int64_t num_classes = 1000;  // num_embeds_ada_norm; the tables hold one row more, for no class
  bool attention_bias = true;  // of queries, keys and values
  std::string activation = "gelu-approximate";
  bool norm_elementwise_affine = false;  // norm3 has weight and bias
  double norm_eps = 1e-5;                // of norm3

  int64_t inner_dim() const { return num_heads * head_dim; }
};

// Reads every key of the config; input error that names a key or value the network here cannot honour.
DitConfig parse_dit_config(const Json& json, const std::string& where);

}  // namespace prefusion::unet
