#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/rng.h"
#include "images/upright_size.h"

namespace prefusion::data {

struct TransformOptions {
  int64_t resolution = 512;  // pixels; a multiple of the VAE's factor, which the caller checks
  bool random_crop = false;  // centre otherwise
  bool hflip = true;         // half of the draws
  std::vector<images::PictureSize>
      buckets;  // sizes a group's pictures are cut to one of (data/buckets.h); empty: square()

  images::PictureSize square() const { return {resolution, resolution}; }
};

// Text that names the transform to a size up to its random decisions, for cache keys.
std::string transform_id(const TransformOptions& options, images::PictureSize target);

// The size that a group of these encoded pictures is cut to. Input error when a picture has no header.
images::PictureSize target_size(const TransformOptions& options, const std::vector<std::string_view>& encoded);

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
  images::PictureSize target;  // of the crop
};

// Where the crop lies once the cropped picture is mirrored: as if the whole had been mirrored first.
ImageGeometry mirrored(const ImageGeometry& geometry);

struct TransformedImage {
  at::Tensor pixel_values;  // float [3, H, W] in [-1, 1], of the target's size
  ImageGeometry geometry;
};

struct PlacedImage {
  at::Tensor pixels;  // uint8 [H, W, C], of the target's size
  ImageGeometry geometry;
};

// uint8 [h, w, C], C 1 or 3: resized so that it just covers the target (antialiased bilinear, Pillow-exact; one side is
// the target's, the other truncated as torchvision does), a crop of the target's size, a flip. For a square target that
// is the shorter side resized to it.
PlacedImage place_image(const at::Tensor& image, images::PictureSize target, const TransformDecision& decision);

// The same of uint8 [h, w, 3], as pixel values.
TransformedImage transform_image(const at::Tensor& image, images::PictureSize target,
                                 const TransformDecision& decision);

// uint8 [H, W, 3] to float [3, H, W] in [-1, 1]: (x / 255 - 0.5) / 0.5.
at::Tensor to_pixel_values(const at::Tensor& image);

// float [3, H, W] in [-1, 1] to uint8 [H, W, 3], rounded and clamped.
at::Tensor to_image(const at::Tensor& pixel_values);

}  // namespace prefusion::data
