#include "data/transform.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "images/pillow_resize.h"

namespace prefusion::data {
namespace {

// Half to even, as Python's round() in torchvision's centre crop.
int64_t centre_offset(int64_t slack) {
  return static_cast<int64_t>(std::nearbyint(static_cast<double>(slack) / 2.0));
}

int64_t crop_offset(int64_t slack, double place, bool is_centred) {
  if (is_centred) return centre_offset(slack);
  return std::min(slack, static_cast<int64_t>(place * static_cast<double>(slack + 1)));
}

// Of one side, when the shorter of both becomes `resolution`; truncated as torchvision does.
int64_t resized_length(int64_t length, int64_t other, int64_t resolution) {
  return length > other ? resolution * length / other : resolution;
}

}  // namespace

std::string transform_id(const TransformOptions& options) {
  return concat("bilinear-", options.resolution, options.random_crop ? "-random-crop" : "-centre-crop");
}

TransformDecision decide_transform(const TransformOptions& options, const DrawKey& key) {
  TransformDecision decision{.is_centred = !options.random_crop};
  if (options.hflip) decision.is_flipped = CounterRng(key, RandomPurpose::kFlip).uniform() < 0.5;
  if (options.random_crop) {
    CounterRng rng(key, RandomPurpose::kCrop);
    decision.crop_y = rng.uniform();
    decision.crop_x = rng.uniform();
  }
  return decision;
}

PlacedImage place_image(const at::Tensor& image, const TransformOptions& options, const TransformDecision& decision) {
  check_usage(options.resolution > 0, "the resolution must be positive, not ", options.resolution);
  const int64_t size = options.resolution;
  const int64_t height = image.size(0);
  const int64_t width = image.size(1);
  // An extreme shape would grow a thousandfold before the crop throws nearly all of it away.
  constexpr int64_t kMaxAspect = 64;
  check_input(std::max(height, width) <= kMaxAspect * std::min(height, width), "the picture is too narrow: ", width,
              "x", height);
  const int64_t new_height = resized_length(height, width, size);
  const int64_t new_width = resized_length(width, height, size);
  const at::Tensor resized = images::pillow_resize(image, new_height, new_width, images::ResizeFilter::kBilinear);
  const int64_t top = crop_offset(new_height - size, decision.crop_y, decision.is_centred);
  const int64_t left = crop_offset(new_width - size, decision.crop_x, decision.is_centred);
  at::Tensor cropped = resized.narrow(0, top, size).narrow(1, left, size);
  if (decision.is_flipped) cropped = cropped.flip({1});
  return PlacedImage{.pixels = cropped,
                     .geometry = ImageGeometry{.original_height = height,
                                               .original_width = width,
                                               .crop_top = top,
                                               .crop_left = decision.is_flipped ? new_width - size - left : left}};
}

ImageGeometry mirrored(const ImageGeometry& geometry, int64_t resolution) {
  ImageGeometry result = geometry;
  const int64_t width = resized_length(geometry.original_width, geometry.original_height, resolution);
  result.crop_left = width - resolution - geometry.crop_left;
  return result;
}

TransformedImage transform_image(const at::Tensor& image, const TransformOptions& options,
                                 const TransformDecision& decision) {
  const PlacedImage placed = place_image(image, options, decision);
  return TransformedImage{.pixel_values = to_pixel_values(placed.pixels), .geometry = placed.geometry};
}

at::Tensor to_pixel_values(const at::Tensor& image) {
  static const std::array<float, 256> kValues = [] {
    std::array<float, 256> values{};
    for (int i = 0; i < 256; ++i) values[i] = (static_cast<float>(i) / 255.0f - 0.5f) / 0.5f;
    return values;
  }();
  const at::Tensor source = image.contiguous();
  const int64_t height = source.size(0);
  const int64_t width = source.size(1);
  at::Tensor out = at::empty({3, height, width}, at::kFloat);
  const uint8_t* from = source.data_ptr<uint8_t>();
  float* to = out.data_ptr<float>();
  const int64_t plane = height * width;
  for (int64_t i = 0; i < plane; ++i) {
    for (int64_t c = 0; c < 3; ++c) to[c * plane + i] = kValues[from[3 * i + c]];
  }
  return out;
}

at::Tensor to_image(const at::Tensor& pixel_values) {
  return pixel_values.to(at::kFloat)
      .mul(0.5)
      .add(0.5)
      .clamp(0, 1)
      .mul(255)
      .round()
      .to(at::kByte)
      .permute({1, 2, 0})
      .contiguous();
}

}  // namespace prefusion::data
