#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace prefusion::images {

enum class ResizeFilter { kBilinear, kBicubic };  // bicubic with a = -0.5

// Resizes uint8 [H, W, C], C = 1, 3 or 4, to [height, width, C] exactly as Image.resize of Pillow 13 does: two
// separable passes, antialiased (the filter is widened when shrinking), 22-bit fixed-point weights, rounded to 8 bits
// after each pass.
at::Tensor pillow_resize(const at::Tensor& image, int64_t height, int64_t width, ResizeFilter filter);

}  // namespace prefusion::images
