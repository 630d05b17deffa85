#pragma once

#include <cstdint>
#include <string>

#include "core/json_config.h"

namespace prefusion::unet {

// config.json of PixArtTransformer2DModel, and of the Transformer2DModel that PixArt folders of before mid-2024 name.
struct PixArtConfig {
  int64_t in_channels = 4;
  int64_t out_channels = 8;  // twice in_channels where the variance is learnt
  int64_t num_layers = 28;
  int64_t num_heads = 16;
  int64_t head_dim = 72;
  int64_t cross_attention_dim = 1152;
  int64_t caption_channels = 0;  // width of the text states before a projection to the blocks' width; 0: none
  int64_t sample_size = 128;     // latent height and width
  int64_t patch_size = 2;
  double interpolation_scale = 2;  // of the positions
  bool attention_bias = true;      // of queries, keys and values
  std::string activation = "gelu-approximate";
  bool norm_elementwise_affine = false;  // norm1 and norm2 have weight and bias
  double norm_eps = 1e-6;
  bool use_additional_conditions = true;  // the model is told resolution and aspect ratio

  int64_t inner_dim() const { return num_heads * head_dim; }
  // Width of encoder_hidden_states.
  int64_t text_dim() const { return caption_channels > 0 ? caption_channels : cross_attention_dim; }
};

// Reads every key of the config; input error that names a key or value the network here cannot honour.
PixArtConfig parse_pixart_config(const Json& json, const std::string& where);

}  // namespace prefusion::unet
