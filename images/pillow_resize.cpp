#include "images/pillow_resize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "core/error.h"
#include "images/byte_arithmetic.h"
#include "images/resize_passes.h"

namespace prefusion::images {
namespace {

// One axis of a resize: the source pixels the window needs, and how it is made of them (nothing where the size stays).
struct Axis {
  Axis(int64_t in_size, int64_t out_size, int64_t begin, int64_t count, ResizeFilter filter)
      : source_begin(begin), source_end(begin + count) {
    if (in_size == out_size) return;
    taps = make_resize_taps(in_size, out_size, begin, count, filter);
    source_begin = taps->source_begin;
    source_end = taps->source_end;
  }

  int64_t source_begin;
  int64_t source_end;
  std::optional<ResizeTaps> taps;
};

// Pillow walks 8-bit pictures by adding up the step, 16-bit ones by multiplying it.
at::Tensor nearest_positions(int64_t in_size, int64_t out_size, int64_t begin, int64_t count, bool adds_up) {
  const double step = static_cast<double>(in_size) / static_cast<double>(out_size);
  std::vector<int64_t> positions;
  double position = step * 0.5;
  for (int64_t out = 0; out < begin + count; ++out, position += step) {
    const double place = adds_up ? position : step * (static_cast<double>(out) + 0.5);
    if (out >= begin) positions.push_back(std::min(static_cast<int64_t>(place), in_size - 1));
  }
  return at::tensor(positions, at::kLong);
}

at::Tensor resize_nearest(const at::Tensor& image, int64_t height, int64_t width, const ResizeWindow& window) {
  const bool adds_up = image.scalar_type() == at::kByte;
  return image.index_select(0, nearest_positions(image.size(0), height, window.top, window.height, adds_up))
      .index_select(1, nearest_positions(image.size(1), width, window.left, window.width, adds_up));
}

// The alpha channel is the last one.
at::Tensor premultiply(const at::Tensor& pixels) {
  at::Tensor result = pixels.clone(at::MemoryFormat::Contiguous);
  const int64_t channels = result.size(2);
  auto* pixel = result.data_ptr<uint8_t>();
  for (int64_t i = 0; i < result.numel(); i += channels, pixel += channels) {
    const int alpha = pixel[channels - 1];
    for (int64_t c = 0; c < channels - 1; ++c) pixel[c] = static_cast<uint8_t>(times_over_255(pixel[c], alpha));
  }
  return result;
}

void unpremultiply_(at::Tensor& pixels) {
  const int64_t channels = pixels.size(2);
  auto* pixel = pixels.data_ptr<uint8_t>();
  for (int64_t i = 0; i < pixels.numel(); i += channels, pixel += channels) {
    const int alpha = pixel[channels - 1];
    if (alpha == 0 || alpha == 255) continue;
    for (int64_t c = 0; c < channels - 1; ++c) pixel[c] = static_cast<uint8_t>(std::min(255 * pixel[c] / alpha, 255));
  }
}

}  // namespace

at::Tensor pillow_resize(const at::Tensor& image, int64_t height, int64_t width, ResizeFilter filter) {
  return pillow_resize(image, height, width, filter, {.height = height, .width = width});
}

at::Tensor pillow_resize(const at::Tensor& image, int64_t height, int64_t width, ResizeFilter filter,
                         const ResizeWindow& window) {
  const bool is_image =
      image.dim() == 3 && image.numel() > 0 && (image.scalar_type() == at::kByte || image.scalar_type() == at::kInt);
  check_usage(is_image && height > 0 && width > 0, "pillow_resize takes uint8 or int32 [H, W, C] and a positive size, ",
              "got ", shape_text(image.sizes()), " to ", height, "x", width);
  check_usage(window.top >= 0 && window.left >= 0 && window.height > 0 && window.width > 0 &&
                  window.top + window.height <= height && window.left + window.width <= width,
              "pillow_resize: the window does not lie in the resized picture");
  if (filter == ResizeFilter::kNearest) return resize_nearest(image, height, width, window);
  const Axis rows(image.size(0), height, window.top, window.height, filter);
  const Axis columns(image.size(1), width, window.left, window.width, filter);
  at::Tensor current = image.contiguous()
                           .slice(0, rows.source_begin, rows.source_end)
                           .slice(1, columns.source_begin, columns.source_end);
  // The first pass decides the rounding of the second. Pillow 13 begins with the height where that loses much more.
  const bool height_first = image.size(0) - height > 2 * std::max<int64_t>(0, image.size(1) - width);
  if (height_first && rows.taps) current = resize_height(current, *rows.taps);
  if (columns.taps) current = resize_width(current, *columns.taps);
  if (!height_first && rows.taps) current = resize_height(current, *rows.taps);
  return current.contiguous();
}

Picture pillow_resize(const Picture& picture, int64_t height, int64_t width, ResizeFilter filter,
                      const ResizeWindow& window) {
  Picture resized = picture;
  const bool has_palette = picture.mode == PictureMode::kPalette || picture.mode == PictureMode::kBilevel;
  const bool has_alpha = picture.mode == PictureMode::kGreyAlpha || picture.mode == PictureMode::kRgba;
  const bool keeps_size = height == picture.height() && width == picture.width();
  if (has_palette) filter = ResizeFilter::kNearest;
  if (!has_alpha || filter == ResizeFilter::kNearest || keeps_size) {
    resized.pixels = pillow_resize(picture.pixels, height, width, filter, window);
    return resized;
  }
  resized.pixels = pillow_resize(premultiply(picture.pixels), height, width, filter, window);
  unpremultiply_(resized.pixels);
  return resized;
}

}  // namespace prefusion::images
