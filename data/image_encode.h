#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace prefusion::data {

// uint8 [H, W, 3] RGB to the bytes of a PNG file.
std::string encode_png(const at::Tensor& image);

}  // namespace prefusion::data
