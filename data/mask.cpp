#include "data/mask.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::data {

at::Tensor decode_mask(std::string_view encoded, const at::Tensor& picture, const images::ImageLimits& limits) {
  at::Tensor image;
  try {
    image = images::decode_image(encoded, limits);
  } catch (const Error& error) {
    throw Error(error.error_class(), concat("mask: ", error.what()));
  }
  check_input(image.size(0) == picture.size(0) && image.size(1) == picture.size(1), "the mask has ", image.size(1), "x",
              image.size(0), " pixels, its picture ", picture.size(1), "x", picture.size(0), "; they must be the same");
  // ITU-R 601-2 luma in 16-bit fixed point; grey stays what it is.
  const at::Tensor luma = at::tensor({19595, 38470, 7471}, at::kInt);
  return ((image.to(at::kInt) * luma).sum(2, /*keepdim=*/true, at::kInt) + 0x8000)
      .bitwise_right_shift(16)
      .to(at::kByte);
}

at::Tensor transform_mask(const at::Tensor& mask, images::PictureSize target, const TransformDecision& decision) {
  return place_image(mask, target, decision).pixels.squeeze(2);
}

at::Tensor average_masks(const at::Tensor& masks, int64_t factor) {
  std::vector<int64_t> shape = masks.sizes().slice(0, masks.dim() - 2).vec();
  const auto leading = shape.size();
  shape.insert(shape.end(), {1, masks.size(-2) / factor, factor, masks.size(-1) / factor, factor});
  const auto axis = static_cast<int64_t>(leading);
  // Sums of bytes are exact, in whatever order.
  const at::Tensor sums = masks.reshape(shape).to(at::kInt).sum({axis + 2, axis + 4}, false, at::kInt);
  return sums.to(at::kFloat) / static_cast<double>(255 * factor * factor);
}

}  // namespace prefusion::data
