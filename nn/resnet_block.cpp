#include "nn/resnet_block.h"

#include <ATen/ATen.h>

#include <limits>

namespace prefusion::nn {

ResnetBlockImpl::ResnetBlockImpl(const ResnetBlockOptions& options) : options_(options) {
  const int64_t in = options.in_channels;
  const int64_t out = options.out_channels;
  norm1 = register_module("norm1", GroupNorm(options.norm_num_groups, in, options.norm_eps));
  conv1 = register_module("conv1", Conv2d(Conv2dOptions{in, out}));
  if (options.time_channels > 0) {
    time_emb_proj =
        register_module("time_emb_proj", Linear(options.time_channels, options.is_scale_shift ? 2 * out : out));
  }
  norm2 = register_module("norm2", GroupNorm(options.norm_num_groups, out, options.norm_eps));
  conv2 = register_module("conv2", Conv2d(Conv2dOptions{out, out}));
  if (in != out) conv_shortcut = register_module("conv_shortcut", Conv2d(Conv2dOptions{in, out, 1, 1, 0}));
}

at::Tensor ResnetBlockImpl::forward(const at::Tensor& input, const at::Tensor& activated_time) {
  at::Tensor hidden = conv1->forward(norm1->forward_activated(input, options_.activation));
  const at::Tensor time = time_emb_proj ? time_emb_proj->forward(activated_time) : at::Tensor();
  if (time.defined() && options_.is_scale_shift) {
    const auto scale_and_shift = time.unsqueeze(-1).unsqueeze(-1).chunk(2, /*dim=*/1);
    hidden = options_.activation(norm2->forward(hidden) * (1 + scale_and_shift[0]) + scale_and_shift[1]);
  } else {
    hidden = norm2->forward_activated(hidden, options_.activation, time);
  }
  hidden = conv2->forward(hidden);
  const at::Tensor output = (conv_shortcut ? conv_shortcut->forward(input) : input) + hidden;
  return options_.output_scale_factor == 1.0 ? output : output / options_.output_scale_factor;
}

Downsample2DImpl::Downsample2DImpl(int64_t channels, int64_t padding) {
  conv = register_module("conv", Conv2d(Conv2dOptions{channels, channels, 3, 2, padding}));
}

at::Tensor Downsample2DImpl::forward(const at::Tensor& input) {
  return conv->forward(conv->options.padding == 0 ? at::constant_pad_nd(input, {0, 1, 0, 1}) : input);
}

Upsample2DImpl::Upsample2DImpl(int64_t channels) {
  conv = register_module("conv", Conv2d(Conv2dOptions{channels, channels}));
}

at::Tensor Upsample2DImpl::forward(const at::Tensor& input, int64_t height, int64_t width) {
  // The channels-last CUDA kernel indexes its output with 32 bits (pytorch issue 141831).
  const int64_t output_numel = input.size(0) * input.size(1) * height * width;
  const at::Tensor& source = output_numel > std::numeric_limits<int32_t>::max() ? input.contiguous() : input;
  return conv->forward(at::upsample_nearest2d(source, {height, width}));
}

}  // namespace prefusion::nn
