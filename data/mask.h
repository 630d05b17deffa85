#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

#include "data/transform.h"
#include "images/image_decode.h"

namespace prefusion::data {

// Decodes a mask to grey, uint8 [H, W, 1], white where it counts: colours by Pillow's convert("L"), the alpha channel
// dropped. Input error unless it has the size of its picture, uint8 [H, W, 3].
at::Tensor decode_mask(std::string_view encoded, const at::Tensor& picture, const images::ImageLimits& limits = {});

// A mask where its picture goes: resized, cropped and flipped as transform_image does. uint8 [H, W]
at::Tensor transform_mask(const at::Tensor& mask, images::PictureSize target, const TransformDecision& decision);

// Masks at the size of latents: means over squares of factor x factor pixels. uint8 [..., H, W] to fp32 [..., 1, h, w]
// in [0, 1], the same whether a mask is flipped before or after.
at::Tensor average_masks(const at::Tensor& masks, int64_t factor);

}  // namespace prefusion::data
