#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <string>

#include "nn/layers.h"

namespace prefusion::nn {

struct ResnetBlockOptions {
  int64_t in_channels;
  int64_t out_channels;
  int64_t time_channels = 0;    // width of the time embedding; 0: none
  bool is_scale_shift = false;  // the time embedding scales and shifts after norm2 instead of being added before it
  int64_t norm_num_groups = 32;
  double norm_eps = 1e-6;
  Activation activation = nullptr;
  double output_scale_factor = 1.0;
};

// norm1, activation, conv1, time embedding, norm2, activation, conv2, and a 1x1 conv_shortcut where the channel count
// changes.
class ResnetBlockImpl : public torch::nn::Module {
 public:
  explicit ResnetBlockImpl(const ResnetBlockOptions& options);

  // input [B, in, H, W]; activated_time [B, time_channels] is the time embedding after the activation (the same for
  // all blocks of a network, so the network applies it once), undefined where there is none -> [B, out, H, W].
  at::Tensor forward(const at::Tensor& input, const at::Tensor& activated_time = {});

 private:
  ResnetBlockOptions options_;
  GroupNorm norm1{nullptr}, norm2{nullptr};
  Conv2d conv1{nullptr}, conv2{nullptr}, conv_shortcut{nullptr};
  Linear time_emb_proj{nullptr};
};
TORCH_MODULE(ResnetBlock);

// Halves height and width by a strided convolution. Padding 0 pads right and bottom only, as autoencoders do.
class Downsample2DImpl : public torch::nn::Module {
 public:
  Downsample2DImpl(int64_t channels, int64_t padding);
  at::Tensor forward(const at::Tensor& input);  // [B, C, H, W] -> [B, C, H', W']

 private:
  Conv2d conv{nullptr};
};
TORCH_MODULE(Downsample2D);

// Nearest-neighbour enlargement followed by a convolution.
class Upsample2DImpl : public torch::nn::Module {
 public:
  explicit Upsample2DImpl(int64_t channels);

  // [B, C, H, W] -> [B, C, height, width]; odd sizes come from a skip connection of that size.
  at::Tensor forward(const at::Tensor& input, int64_t height, int64_t width);

 private:
  Conv2d conv{nullptr};
};
TORCH_MODULE(Upsample2D);

}  // namespace prefusion::nn
