#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

// The memory order of pictures inside convolutional networks. A convolution's output is in channels-last memory when
// its input or its weight is; everything between convolutions keeps the order of what it is given.
namespace prefusion::nn {

// Whether pictures [B, C, H, W] are in channels-last memory and in no other order at once.
bool is_channels_last(const at::Tensor& pictures);

// Brings the weights of all convolutions below `module` into channels-last memory. Values, names and shapes stay.
void to_channels_last(torch::nn::Module& module);

// to_channels_last for the weights that are faster so: half precision on a GPU, whose matrix units take pictures in
// this order; in the other, cuDNN turns every input and output around. On a CPU oneDNN has an order of its own.
void to_fastest_layout(torch::nn::Module& module);

}  // namespace prefusion::nn
