#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json_config.h"

namespace prefusion::unet {

// config.json of FluxTransformer2DModel. Channels are those of a token, which packs 2 x 2 latent pixels.
struct FluxConfig {
  int64_t patch_size = 1;  // a token is given out as patch_size^2 * out_channels channels
  int64_t in_channels = 64;
  int64_t out_channels = 64;
  int64_t num_layers = 19;         // double-stream blocks
  int64_t num_single_layers = 38;  // single-stream blocks
  int64_t head_dim = 128;
  int64_t num_heads = 24;
  int64_t joint_attention_dim = 4096;                  // width of encoder_hidden_states
  int64_t pooled_projection_dim = 768;                 // width of the pooled text states
  bool guidance_embeds = false;                        // the model is told a guidance scale
  std::vector<int64_t> axes_dims_rope = {16, 56, 56};  // channels of a head that follow image index, row and column

  int64_t inner_dim() const { return num_heads * head_dim; }
};

// Reads every key of the config; input error that names a key or value the network here cannot honour.
FluxConfig parse_flux_config(const Json& json, const std::string& where);

}  // namespace prefusion::unet
