#include "images/picture.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::images {

Picture rgb_picture(const at::Tensor& pixels) {
  check_usage(pixels.dim() == 3 && pixels.size(2) == 3 && pixels.scalar_type() == at::kByte,
              "a picture must be uint8 [H, W, 3], found ", shape_text(pixels.sizes()));
  return {.mode = PictureMode::kRgb, .pixels = pixels};
}

}  // namespace prefusion::images
