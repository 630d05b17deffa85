#include "data/transform.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "data/buckets.h"
#include "images/pillow_resize.h"

namespace prefusion::data {
namespace {

using images::PictureSize;

// Half to even, as Python's round() in torchvision's centre crop.
int64_t centre_offset(int64_t slack) {
  return static_cast<int64_t>(std::nearbyint(static_cast<double>(slack) / 2.0));
}

int64_t crop_offset(int64_t slack, double place, bool is_centred) {
  if (is_centred) return centre_offset(slack);
  return std::min(slack, static_cast<int64_t>(place * static_cast<double>(slack + 1)));
}

// The smallest size of the picture's shape that covers the target: one side is the target's, the other truncated as
// torchvision does.
PictureSize covering_size(PictureSize picture, PictureSize target) {
  if (picture.width * target.height > picture.height * target.width) {
    return {target.height, target.height * picture.width / picture.height};
  }
  return {target.width * picture.height / picture.width, target.width};
}

}  // namespace

std::string transform_id(const TransformOptions& options, PictureSize target) {
  const std::string size = target.height == target.width ? concat(target.height) : size_text(target);
  return concat("bilinear-", size, options.random_crop ? "-random-crop" : "-centre-crop");
}

PictureSize target_size(const TransformOptions& options, const std::vector<std::string_view>& encoded) {
  if (options.buckets.empty()) return options.square();
  std::vector<PictureSize> sizes;
  for (const std::string_view picture : encoded) sizes.push_back(images::upright_size(picture));
  return choose_bucket(options.buckets, sizes);
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

PlacedImage place_image(const at::Tensor& image, PictureSize target, const TransformDecision& decision) {
  check_usage(target.height > 0 && target.width > 0, "the resolution must be positive, not ", size_text(target));
  const PictureSize original{.height = image.size(0), .width = image.size(1)};
  // An extreme shape would grow a thousandfold before the crop throws nearly all of it away.
  constexpr int64_t kMaxAspect = 64;
  check_input(std::max(original.height, original.width) <= kMaxAspect * std::min(original.height, original.width),
              "the picture is too narrow: ", size_text(original));
  const PictureSize size = covering_size(original, target);
  const at::Tensor resized = images::pillow_resize(image, size.height, size.width, images::ResizeFilter::kBilinear);
  const int64_t top = crop_offset(size.height - target.height, decision.crop_y, decision.is_centred);
  const int64_t left = crop_offset(size.width - target.width, decision.crop_x, decision.is_centred);
  at::Tensor cropped = resized.narrow(0, top, target.height).narrow(1, left, target.width);
  if (decision.is_flipped) cropped = cropped.flip({1});
  const ImageGeometry geometry{.original_height = original.height,
                               .original_width = original.width,
                               .crop_top = top,
                               .crop_left = left,
                               .target = target};
  return PlacedImage{.pixels = cropped, .geometry = decision.is_flipped ? mirrored(geometry) : geometry};
}

ImageGeometry mirrored(const ImageGeometry& geometry) {
  ImageGeometry result = geometry;
  const PictureSize size = covering_size({geometry.original_height, geometry.original_width}, geometry.target);
  result.crop_left = size.width - geometry.target.width - geometry.crop_left;
  return result;
}

TransformedImage transform_image(const at::Tensor& image, PictureSize target, const TransformDecision& decision) {
  const PlacedImage placed = place_image(image, target, decision);
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
