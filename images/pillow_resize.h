#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "images/picture.h"

namespace prefusion::images {

// Bicubic with a = -0.5; Lanczos with three lobes.
enum class ResizeFilter { kNearest, kBox, kBilinear, kHamming, kBicubic, kLanczos };

// The part of the resized picture that is wanted. What lies outside is never computed.
struct ResizeWindow {
  int64_t top = 0;
  int64_t left = 0;
  int64_t height = 0;
  int64_t width = 0;
};

// Resizes uint8 [H, W, C] to [height, width, C] exactly as Image.resize of Pillow 13 does: two separable passes,
// antialiased (the filter is widened when shrinking), 22-bit fixed-point weights, rounded to 8 bits after each pass.
// int32 [H, W, C] is resized as its 16-bit modes are.
at::Tensor pillow_resize(const at::Tensor& image, int64_t height, int64_t width, ResizeFilter filter);

// The same, of which only the window is computed and returned.
at::Tensor pillow_resize(const at::Tensor& image, int64_t height, int64_t width, ResizeFilter filter,
                         const ResizeWindow& window);

// Resizes in the picture's own mode, as Pillow does: palettes and bilevel pictures by the nearest pixel whatever the
// filter, pictures with an alpha channel weighted by it.
Picture pillow_resize(const Picture& picture, int64_t height, int64_t width, ResizeFilter filter,
                      const ResizeWindow& window);

}  // namespace prefusion::images
