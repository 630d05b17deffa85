#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>

#include "nn/attention.h"
#include "nn/module_list.h"
#include "nn/resnet_block.h"
#include "vae/autoencoder_config.h"

namespace prefusion::vae {

// Resnet blocks of one resolution, then a change of size where there is one: DownEncoderBlock2D and UpDecoderBlock2D.
class CoderStage : public torch::nn::Module {
 public:
  enum class Resize { kNone, kHalve, kDouble };
  CoderStage(const AutoencoderKLConfig& config, int64_t in_channels, int64_t out_channels, int64_t num_layers,
             Resize resize);
  at::Tensor forward(at::Tensor hidden_states, bool recompute);  // [B, in, H, W] -> [B, out, H', W']

 private:
  std::shared_ptr<nn::ModuleList<nn::ResnetBlock>> resnets;
  std::shared_ptr<nn::ModuleList<nn::Downsample2D>> downsamplers;
  std::shared_ptr<nn::ModuleList<nn::Upsample2D>> upsamplers;
};

// Resnet block, attention over all pixels with one head, resnet block.
class CoderMidBlock : public torch::nn::Module {
 public:
  CoderMidBlock(const AutoencoderKLConfig& config, int64_t channels);
  at::Tensor forward(at::Tensor hidden_states, bool recompute);  // [B, C, H, W] -> [B, C, H, W]

 private:
  std::shared_ptr<nn::ModuleList<nn::Attention>> attentions;
  std::shared_ptr<nn::ModuleList<nn::ResnetBlock>> resnets;
};

// Pixels to twice the latent channels (mean and log-variance) and, mirrored, latents to pixels.
class Encoder : public torch::nn::Module {
 public:
  explicit Encoder(const AutoencoderKLConfig& config);
  // [B, in_channels, H, W] -> [B, 2 * latent_channels, H / factor, W / factor]
  at::Tensor forward(const at::Tensor& pixel_values, bool recompute);

 private:
  nn::Conv2d conv_in{nullptr}, conv_out{nullptr};
  std::shared_ptr<nn::ModuleList<std::shared_ptr<CoderStage>>> down_blocks;
  std::shared_ptr<CoderMidBlock> mid_block;
  nn::GroupNorm conv_norm_out{nullptr};
};

class Decoder : public torch::nn::Module {
 public:
  explicit Decoder(const AutoencoderKLConfig& config);
  // [B, latent_channels, H, W] -> [B, out_channels, H * factor, W * factor]
  at::Tensor forward(const at::Tensor& unscaled_latents, bool recompute);

 private:
  nn::Conv2d conv_in{nullptr}, conv_out{nullptr};
  std::shared_ptr<CoderMidBlock> mid_block;
  std::shared_ptr<nn::ModuleList<std::shared_ptr<CoderStage>>> up_blocks;
  nn::GroupNorm conv_norm_out{nullptr};
};

}  // namespace prefusion::vae
