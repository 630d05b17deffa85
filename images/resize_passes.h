#pragma once

#include <ATen/core/Tensor.h>

#include "images/resize_taps.h"

// The two passes of a resize. Rows of `image` [H, W, C] (uint8 or int32) may lie apart, its pixels may not.
namespace prefusion::images {

// [H, W, C] -> [H, outputs, C]; the columns of `image` are those from taps.source_begin on.
at::Tensor resize_width(const at::Tensor& image, const ResizeTaps& taps);

// [H, W, C] -> [outputs, W, C]; the rows of `image` are those from taps.source_begin on.
at::Tensor resize_height(const at::Tensor& image, const ResizeTaps& taps);

}  // namespace prefusion::images
