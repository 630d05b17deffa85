#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>

#include "images/image_decode.h"

namespace prefusion::images {

// How stored pixels are to be read: the modes Pillow opens files in.
enum class PictureMode {
  kBilevel,    // "1": 0 or 255, [H, W, 1]
  kGrey,       // "L": [H, W, 1]
  kGreyAlpha,  // "LA": [H, W, 2]
  kGrey16,     // "I;16": int32 [H, W, 1]
  kPalette,    // "P": indices, [H, W, 1]
  kRgb,        // "RGB": [H, W, 3]
  kRgba,       // "RGBA": [H, W, 4]
  kCmyk,       // "CMYK": [H, W, 4], 255 is full ink
};

// A decoded picture before any conversion of colours: reward models differ in what they do to it, and in which order.
struct Picture {
  PictureMode mode = PictureMode::kRgb;
  at::Tensor pixels;   // uint8 but for kGrey16, [H, W, C], on the CPU
  at::Tensor palette;  // uint8 [256, 4] RGBA, black where the file defines no colour; only for kPalette
  // The grey level (one entry) or colour (three) that stands for transparent, or undefined: PNG's tRNS chunk. uint8: of
  // its 16-bit numbers Pillow compares the lower halves with pixels that it has brought to 8 bits.
  at::Tensor transparent_colour;
  int orientation = 1;  // EXIF, 1 .. 8; not applied yet

  int64_t height() const { return pixels.size(0); }
  int64_t width() const { return pixels.size(1); }
};

// uint8 [H, W, 3] as a picture.
Picture rgb_picture(const at::Tensor& pixels);

// Pixels as Pillow 13 stores them, whatever the file says about colour profiles. 16-bit colours are cut to the upper 8;
// 16-bit grey with alpha becomes RGBA. Input error as of decode_image().
Picture decode_picture(std::string_view encoded, const ImageLimits& limits = {});

// uint8 [H, W, 3] as Pillow's convert("RGB") gives it: alpha and transparent colours are dropped, the colours under
// them stay; 16-bit grey saturates at 255.
at::Tensor to_rgb(const Picture& picture);

// uint8 [H, W, 3] as transformers 5 converts pictures to RGB: whatever is transparent shows white.
at::Tensor composite_on_white(const Picture& picture);

// The picture as it is meant to be seen: its orientation applied.
Picture upright(const Picture& picture);

}  // namespace prefusion::images
