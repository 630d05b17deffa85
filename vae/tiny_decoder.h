#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "nn/layers.h"

namespace prefusion::vae {

// config.json of AutoencoderTiny, as far as its decoder goes.
struct TinyDecoderConfig {
  int64_t latent_channels = 4;
  int64_t out_channels = 3;
  std::vector<int64_t> block_out_channels = {64, 64, 64, 64};
  std::vector<int64_t> num_blocks = {3, 3, 3, 1};
  int64_t upsampling_factor = 2;
  double scaling_factor = 1.0;
  double shift_factor = 0.0;
  nn::Activation activation = nullptr;
};

// Reads every key of the config; input error that names a key or value the network here cannot honour.
TinyDecoderConfig parse_tiny_decoder_config(const Json& json, const std::string& where);

// The decoder of AutoencoderTiny (TAESD): distilled from a large autoencoder to plain convolutions, for previews.
// Checkpoint keys are "decoder.layers.N..." as diffusers counts layers.
class TinyDecoder : public torch::nn::Module {
 public:
  explicit TinyDecoder(const TinyDecoderConfig& config);

  // latents [B, latent_channels, h, w] -> pixel_values [B, 3, h * factor, w * factor], about [-1, 1]; computed in the
  // dtype of the weights, returned in fp32. Input error for another number of channels.
  at::Tensor decode(const at::Tensor& latents);

  // Pixels a latent stands for in each direction.
  int64_t scale_factor_px() const;
  const TinyDecoderConfig& config() const { return config_; }

 private:
  class Block;
  class Layers;

  TinyDecoderConfig config_;
  std::shared_ptr<Layers> layers_;
};

// The decoder of an AutoencoderTiny's folder; weights of its encoder are left aside.
std::shared_ptr<TinyDecoder> load_tiny_decoder(const std::filesystem::path& folder, at::ScalarType dtype,
                                               at::Device device);

}  // namespace prefusion::vae
