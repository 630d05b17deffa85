#include "images/picture.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "images/byte_arithmetic.h"
#include "images/image_codecs.h"

namespace prefusion::images {
namespace {

// Calls convert(const In* stored, uint8_t* out) for every pixel; `out` has kOut bytes.
template <int kOut, typename In = uint8_t, typename Convert>
at::Tensor map_pixels(const at::Tensor& pixels, const Convert& convert) {
  const at::Tensor stored = pixels.contiguous();
  const int64_t channels = stored.size(2);
  const int64_t count = stored.size(0) * stored.size(1);
  at::Tensor result = at::empty({stored.size(0), stored.size(1), kOut}, at::kByte);
  const In* in = stored.const_data_ptr<In>();
  auto* out = result.data_ptr<uint8_t>();
  for (int64_t i = 0; i < count; ++i, in += channels, out += kOut) convert(in, out);
  return result;
}

void grey_to_rgb(const uint8_t* grey, uint8_t* rgb) {
  rgb[0] = rgb[1] = rgb[2] = grey[0];
}

void cmyk_to_rgb(const uint8_t* cmyk, uint8_t* rgb) {
  const int light = 255 - cmyk[3];
  for (int c = 0; c < 3; ++c) rgb[c] = static_cast<uint8_t>(light - times_over_255(cmyk[c], light));
}

// One channel of a colour of this alpha before white, in the 7 fractional bits of Pillow's alpha_composite.
uint8_t over_white(int colour, int alpha) {
  if (alpha == 0) return 255;
  constexpr int kFractionBits = 7;
  const int share = alpha << kFractionBits;
  const int sum = colour * share + 255 * ((255 << kFractionBits) - share) + (0x80 << kFractionBits);
  return static_cast<uint8_t>(((sum >> 8) + sum) >> 8 >> kFractionBits);
}

// RGB in which pixels of one colour are white.
at::Tensor whiten(at::Tensor rgb, const at::Tensor& colour) {
  const at::Tensor key = colour.expand({3}).contiguous();
  const auto* k = key.const_data_ptr<uint8_t>();
  auto* pixel = rgb.data_ptr<uint8_t>();
  for (int64_t i = 0; i < rgb.numel() / 3; ++i, pixel += 3) {
    if (pixel[0] == k[0] && pixel[1] == k[1] && pixel[2] == k[2]) std::fill_n(pixel, 3, uint8_t{255});
  }
  return rgb;
}

}  // namespace

Picture rgb_picture(const at::Tensor& pixels) {
  check_usage(pixels.dim() == 3 && pixels.size(2) == 3 && pixels.scalar_type() == at::kByte,
              "a picture must be uint8 [H, W, 3], found ", shape_text(pixels.sizes()));
  return {.mode = PictureMode::kRgb, .pixels = pixels};
}

at::Tensor to_rgb(const Picture& picture) {
  const at::Tensor& pixels = picture.pixels;
  switch (picture.mode) {
    case PictureMode::kRgb: return pixels;
    case PictureMode::kRgba:
      return map_pixels<3>(pixels, [](const uint8_t* rgba, uint8_t* rgb) { std::copy_n(rgba, 3, rgb); });
    case PictureMode::kCmyk: return map_pixels<3>(pixels, cmyk_to_rgb);
    case PictureMode::kGrey16:
      return map_pixels<3, int32_t>(pixels, [](const int32_t* grey, uint8_t* rgb) {
        std::fill_n(rgb, 3, static_cast<uint8_t>(std::min(*grey, 255)));
      });
    case PictureMode::kPalette: {
      const auto* colours = picture.palette.const_data_ptr<uint8_t>();
      return map_pixels<3>(pixels,
                           [=](const uint8_t* index, uint8_t* rgb) { std::copy_n(colours + *index * 4, 3, rgb); });
    }
    case PictureMode::kBilevel:
    case PictureMode::kGrey:
    case PictureMode::kGreyAlpha: break;
  }
  return map_pixels<3>(pixels, grey_to_rgb);
}

at::Tensor composite_on_white(const Picture& picture) {
  const at::Tensor& pixels = picture.pixels;
  switch (picture.mode) {
    case PictureMode::kRgba:
      return map_pixels<3>(pixels, [](const uint8_t* rgba, uint8_t* rgb) {
        for (int c = 0; c < 3; ++c) rgb[c] = over_white(rgba[c], rgba[3]);
      });
    case PictureMode::kGreyAlpha:
      return map_pixels<3>(
          pixels, [](const uint8_t* grey, uint8_t* rgb) { std::fill_n(rgb, 3, over_white(grey[0], grey[1])); });
    case PictureMode::kPalette: {
      Picture opaque = picture;
      opaque.palette = at::empty({256, 4}, at::kByte);
      const auto* from = picture.palette.const_data_ptr<uint8_t>();
      auto* to = opaque.palette.data_ptr<uint8_t>();
      for (int i = 0; i < 256 * 4; ++i) to[i] = over_white(from[i], from[i | 3]);
      return to_rgb(opaque);
    }
    default: break;
  }
  const at::Tensor rgb = to_rgb(picture);
  if (!picture.transparent_colour.defined()) return rgb;
  return whiten(picture.mode == PictureMode::kRgb ? rgb.clone(at::MemoryFormat::Contiguous) : rgb,
                picture.transparent_colour);
}

Picture upright(const Picture& picture) {
  if (picture.orientation == 1) return picture;
  Picture turned = picture;
  turned.pixels = apply_orientation(picture.pixels, picture.orientation);
  turned.orientation = 1;
  return turned;
}

}  // namespace prefusion::images
