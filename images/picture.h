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
  at::Tensor palette;  // uint8 [N, 4] RGBA; only for kPalette
  // A grey level (one entry) or colour (three) that stands for transparent, or undefined: PNG's tRNS chunk. uint8.
  at::Tensor transparent_colour;
  int orientation = 1;  // EXIF, 1 .. 8; not applied yet

  int64_t height() const { return pixels.size(0); }
  int64_t width() const { return pixels.size(1); }
};

// uint8 [H, W, 3] as a picture.
Picture rgb_picture(const at::Tensor& pixels);

}  // namespace prefusion::images
