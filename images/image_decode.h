#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace prefusion::images {

enum class ImageFormat { kJpeg, kPng, kWebp };

struct ImageHeader {
  ImageFormat format = ImageFormat::kJpeg;
  int64_t width = 0;  // pixels as stored, before EXIF rotation
  int64_t height = 0;
};

// What a picture may ask for, checked before anything is allocated for its pixels.
struct ImageLimits {
  int64_t max_side = 16384;
  int64_t max_pixels = 100'000'000;
};

// Format and size from the first bytes, by a parser of our own that allocates nothing. Input error when the bytes are
// no JPEG, PNG or WebP, or end before the size is known.
ImageHeader read_image_header(std::string_view encoded);

// Decodes to uint8 [H, W, 3] RGB as Pillow's exif_transpose + convert("RGB") does: greyscale is repeated, CMYK and YCCK
// are converted, palettes resolved, alpha dropped (colours under it stay), 16 bits cut to the upper 8, the EXIF
// orientation applied. Differs from Pillow in one place: 16-bit grey is scaled to 8 bits, where Pillow saturates.
// Input error when a picture is too large, cut off or corrupt: a damaged picture never comes back half grey.
at::Tensor decode_image(std::string_view encoded, const ImageLimits& limits = {});

}  // namespace prefusion::images
