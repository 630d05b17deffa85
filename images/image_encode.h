#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace prefusion::images {

// uint8 [H, W, 3] RGB to the bytes of a PNG file.
std::string encode_png(const at::Tensor& image);

struct JpegOptions {
  int quality = 95;                // 1 .. 100
  bool subsamples_chroma = false;  // 4:2:0 instead of 4:4:4
};

// uint8 [H, W, 3] RGB to the bytes of a JPEG file. Usage error for another quality.
std::string encode_jpeg(const at::Tensor& image, const JpegOptions& options = {});

// uint8 [H, W, 3] RGB to the bytes of a WebP file; quality 0 .. 100, lossless above.
std::string encode_webp(const at::Tensor& image, float quality = 101.0f);

}  // namespace prefusion::images
