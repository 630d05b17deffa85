#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "images/image_decode.h"
#include "images/picture.h"

// One function a format; decode_picture() checks sizes first.
namespace prefusion::images {

Picture decode_jpeg(std::string_view encoded, const ImageHeader& header);
Picture decode_png(std::string_view encoded, const ImageHeader& header);
Picture decode_webp(std::string_view encoded, const ImageHeader& header);

// Orientation 1..8 of an EXIF block (TIFF header first); 1 when it is absent or malformed.
int exif_orientation(std::string_view exif);

// Pixels [H, W, C] as they are meant to be seen: rows and columns exchanged or reversed as the orientation says.
at::Tensor apply_orientation(const at::Tensor& pixels, int orientation);

}  // namespace prefusion::images
