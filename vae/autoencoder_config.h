#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "nn/layers.h"

namespace prefusion::vae {

// config.json of AutoencoderKL.
struct AutoencoderKLConfig {
  int64_t in_channels = 3;
  int64_t out_channels = 3;
  std::vector<int64_t> block_out_channels = {64};  // from the finest resolution
  int64_t layers_per_block = 1;
  nn::Activation activation = nullptr;
  int64_t latent_channels = 4;
  int64_t norm_num_groups = 32;
  int64_t sample_size = 32;  // picture height and width in pixels, also the size of a tile
  double scaling_factor = 0.18215;
  double shift_factor = 0.0;
  bool force_upcast = true;  // the weights overflow in fp16
  bool use_quant_conv = true;
  bool use_post_quant_conv = true;
  bool mid_block_add_attention = true;
};

// Reads every key of the config; input error that names a key or value the network here cannot honour.
AutoencoderKLConfig parse_autoencoder_config(const Json& json, const std::string& where);

}  // namespace prefusion::vae
