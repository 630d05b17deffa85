#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "images/image_decode.h"

// One function a format; decode_image() checks sizes first and applies the orientation after.
namespace prefusion::images {

// Pixels as stored, uint8 [H, W, 3], and the EXIF block (TIFF header first, empty when there is none).
struct StoredImage {
  at::Tensor pixels;
  std::string exif;
};

StoredImage decode_jpeg(std::string_view encoded, const ImageHeader& header);
StoredImage decode_png(std::string_view encoded, const ImageHeader& header);
StoredImage decode_webp(std::string_view encoded, const ImageHeader& header);

// Orientation 1..8 of an EXIF block; 1 when it is absent or malformed.
int exif_orientation(std::string_view exif);

// The picture as it is meant to be seen: rows and columns exchanged or reversed as the orientation says.
at::Tensor apply_orientation(const at::Tensor& pixels, int orientation);

}  // namespace prefusion::images
