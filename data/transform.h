#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/rng.h"

namespace prefusion::data {

struct TransformOptions {
  int64_t resolution = 512;  // pixels; a multiple of the VAE's factor, which the caller checks
  bool random_crop = false;  // centre otherwise
  bool hflip = true;         // half of the draws
};

// Text that names the transform up to its random decisions, for cache keys.
std::string transform_id(const TransformOptions& options);

// What one draw decides for all items of a group.
struct TransformDecision {
  bool is_flipped = false;
  double crop_y = 0.5;  // place of the crop in its slack, 0 top .. 1 bottom; ignored when centred
  double crop_x = 0.5;
  bool is_centred = true;
};

// The decision of one draw, from the streams kFlip and kCrop of `key` alone.
TransformDecision decide_transform(const TransformOptions& options, const DrawKey& key);

// Where a picture's crop lies: SDXL's time ids.
struct ImageGeometry {
  int64_t original_height = 0;
  int64_t original_width = 0;
  int64_t crop_top = 0;  // in the resized, and where flipped the flipped, picture
  int64_t crop_left = 0;
};

// Where the crop lies once the cropped picture is mirrored: as if the whole had been mirrored first.
ImageGeometry mirrored(const ImageGeometry& geometry, int64_t resolution);

struct TransformedImage {
  at::Tensor pixel_values;  // float [3, R, R] in [-1, 1]
  ImageGeometry geometry;
};

struct PlacedImage {
  at::Tensor pixels;  // uint8 [R, R, C]
  ImageGeometry geometry;
};

// uint8 [H, W, C], C 1 or 3: the shorter side resized to R (antialiased bilinear, Pillow-exact; the longer side
// truncated as torchvision does), an R x R crop, a flip.
PlacedImage place_image(const at::Tensor& image, const TransformOptions& options, const TransformDecision& decision);

// The same of uint8 [H, W, 3], as pixel values.
TransformedImage transform_image(const at::Tensor& image, const TransformOptions& options,
                                 const TransformDecision& decision);

// uint8 [H, W, 3] to float [3, H, W] in [-1, 1]: (x / 255 - 0.5) / 0.5.
at::Tensor to_pixel_values(const at::Tensor& image);

// float [3, H, W] in [-1, 1] to uint8 [H, W, 3], rounded and clamped.
at::Tensor to_image(const at::Tensor& pixel_values);

}  // namespace prefusion::data
