#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json_config.h"

namespace prefusion::unet {

// config.json of SD3Transformer2DModel.
struct SD3Config {
  int64_t sample_size = 128;
  int64_t patch_size = 2;
  int64_t in_channels = 16;
  int64_t out_channels = 16;
  int64_t num_attention_heads = 18;
  int64_t attention_head_dim = 64;
  int64_t joint_attention_dim = 4096;    // width of encoder_hidden_states
  int64_t pooled_projection_dim = 2048;  // width of pooled
  int64_t pos_embed_max_size = 96;       // in patches; 0 (null in the file): positions for every size
  bool has_qk_norm = false;              // qk_norm "rms_norm"
  std::vector<bool> is_dual;             // one entry a block: a second attention, among the patches alone

  int64_t inner_dim() const { return num_attention_heads * attention_head_dim; }
};

// Reads every key of the config; input error that names a key or value the network here cannot honour.
SD3Config parse_sd3_config(const Json& json, const std::string& where);

}  // namespace prefusion::unet
