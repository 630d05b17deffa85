#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "nn/layers.h"

namespace prefusion::unet {

// One resolution of the U-Net, on the way down or up.
struct UNetStageConfig {
  bool has_attention = true;
  int64_t channels = 320;
  int64_t num_layers = 2;                   // resnet blocks
  std::vector<int64_t> transformer_layers;  // transformer blocks behind each resnet block
  int64_t num_heads = 8;
  int64_t cross_attention_dim = 1280;
  bool only_cross_attention = false;
};

enum class MidBlock { kNone, kResnetOnly, kCrossAttention };

// config.json of UNet2DConditionModel, with every "number or list" spread to one entry a stage.
struct UNetConfig {
  int64_t in_channels = 4;
  int64_t out_channels = 4;
  int64_t sample_height = 64;
  int64_t sample_width = 64;
  std::vector<UNetStageConfig> down;  // from the finest resolution
  std::vector<UNetStageConfig> up;    // from the coarsest; num_layers is one more than on the way down
  MidBlock mid = MidBlock::kCrossAttention;
  int64_t mid_transformer_layers = 1;
  double mid_scale_factor = 1.0;
  int64_t cross_attention_dim = 1280;  // width of encoder_hidden_states
  int64_t downsample_padding = 1;
  int64_t norm_num_groups = 32;
  double norm_eps = 1e-5;
  int64_t conv_in_kernel = 3;
  int64_t conv_out_kernel = 3;
  nn::Activation activation = nullptr;
  bool center_input_sample = false;
  bool use_linear_projection = false;
  bool is_scale_shift = false;

  bool flip_sin_to_cos = true;
  double freq_shift = 0;
  int64_t time_embedding_dim = 1280;
  nn::Activation time_activation = nullptr;  // once, before the blocks; null: none
  nn::Activation timestep_post_activation = nullptr;
  bool has_text_time = false;           // addition_embed_type "text_time" (SDXL)
  int64_t addition_time_embed_dim = 0;  // sinusoid width of each time id
  int64_t addition_input_dim = 0;       // pooled width + ids * addition_time_embed_dim
};

// Reads every key of the config; input error that names a key or value the network here cannot honour.
UNetConfig parse_unet_config(const Json& json, const std::string& where);

}  // namespace prefusion::unet
