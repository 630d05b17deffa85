#pragma once

#include <cstdint>
#include <vector>

#include "images/pillow_resize.h"

namespace prefusion::images {

// The source pixels that each output pixel of one axis takes, and their weights.
struct ResizeTaps {
  std::vector<int64_t> first;  // relative to source_begin
  std::vector<int64_t> count;
  std::vector<double> weights;  // `stride` for each output pixel, of sum one
  int64_t stride = 0;
  int64_t source_begin = 0;
  int64_t source_end = 0;

  // In 22 bits of fraction, rounded away from zero.
  std::vector<int32_t> fixed_weights() const;
};

// 8 bits of pixel and two of headroom for overshoot stand beside the weight.
inline constexpr int kResizeWeightBits = 32 - 8 - 2;

// Outputs out_begin .. out_begin + out_count of an axis that goes from in_size to out_size pixels.
ResizeTaps make_resize_taps(int64_t in_size, int64_t out_size, int64_t out_begin, int64_t out_count,
                            ResizeFilter filter);

}  // namespace prefusion::images
