#include "images/resize_passes.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace prefusion::images {
namespace {

// Compiled for AVX2 as well and chosen at run time; the integer arithmetic is the same.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PREFUSION_RESIZE_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define PREFUSION_RESIZE_CLONES
#endif

constexpr int kLanes = 16;  // bytes that are summed at once
using Bytes __attribute__((vector_size(8))) = uint8_t;
using Sums __attribute__((vector_size(32))) = int32_t;

// out[k] = the weighted sum of in[i * step + k] over i, rounded to 8 bits, for kLanes values of k.
inline __attribute__((always_inline)) void weighted_sum(const uint8_t* in, int64_t step, const int32_t* weights,
                                                        int64_t count, uint8_t* out) {
  constexpr int32_t kHalf = 1 << (kResizeWeightBits - 1);
  Sums low = Sums{} + kHalf;
  Sums high = low;
  for (int64_t i = 0; i < count; ++i, in += step) {
    Bytes bytes[2];
    std::memcpy(bytes, in, sizeof bytes);
    low += __builtin_convertvector(bytes[0], Sums) * weights[i];
    high += __builtin_convertvector(bytes[1], Sums) * weights[i];
  }
  for (int half = 0; half < 2; ++half) {
    Sums value = (half == 0 ? low : high) >> kResizeWeightBits;
    value = value < 0 ? Sums{} : value;
    value = value > 255 ? Sums{} + 255 : value;
    const Bytes bytes = __builtin_convertvector(value, Bytes);
    std::memcpy(out + 8 * half, &bytes, sizeof bytes);
  }
}

// Up to kLanes rows at once: they are transposed, so that the same byte of all rows lies together.
PREFUSION_RESIZE_CLONES
void resize_rows(const uint8_t* in, int64_t in_stride, int64_t in_bytes, int64_t num_rows, int64_t channels,
                 const ResizeTaps& taps, const int32_t* weights, uint8_t* transposed, uint8_t* out,
                 int64_t out_stride) {
  const uint8_t* rows[kLanes];
  for (int r = 0; r < kLanes; ++r) rows[r] = in + std::min<int64_t>(r, num_rows - 1) * in_stride;
  for (int64_t j = 0; j < in_bytes; ++j) {
    for (int r = 0; r < kLanes; ++r) transposed[j * kLanes + r] = rows[r][j];
  }
  const auto width = static_cast<int64_t>(taps.first.size());
  for (int64_t x = 0; x < width; ++x) {
    for (int64_t c = 0; c < channels; ++c) {
      uint8_t column[kLanes];
      weighted_sum(transposed + (taps.first[x] * channels + c) * kLanes, channels * kLanes, weights + x * taps.stride,
                   taps.count[x], column);
      for (int64_t r = 0; r < num_rows; ++r) out[r * out_stride + x * channels + c] = column[r];
    }
  }
}

// One output row of at least kLanes bytes; the last lanes may be computed twice.
PREFUSION_RESIZE_CLONES
void resize_columns(const uint8_t* in, int64_t in_stride, int64_t row_bytes, const int32_t* weights, int64_t count,
                    uint8_t* out) {
  for (int64_t x = 0; x < row_bytes; x += kLanes) {
    const int64_t begin = std::min(x, row_bytes - kLanes);
    weighted_sum(in + begin, in_stride, weights, count, out + begin);
  }
}

// Pillow's 16-bit modes: exact sums, of which the two bytes are clipped one by one.
int32_t round_to_16_bits(double sum) {
  const auto rounded = static_cast<int32_t>(sum >= 0.0 ? sum + 0.5 : sum - 0.5);
  return std::clamp(rounded >> 8, 0, 255) << 8 | std::max(rounded % 256, 0);
}

// out[x] = the weighted sum of in[i * step] over i.
int32_t weighted_sum_16(const int32_t* in, int64_t step, const double* weights, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += in[i * step] * weights[i];
  return round_to_16_bits(sum);
}

}  // namespace

at::Tensor resize_width(const at::Tensor& image, const ResizeTaps& taps) {
  const int64_t height = image.size(0);
  const int64_t channels = image.size(2);
  const auto width = static_cast<int64_t>(taps.first.size());
  at::Tensor resized = at::empty({height, width, channels}, image.options());
  if (image.scalar_type() == at::kInt) {
    for (int64_t y = 0; y < height; ++y) {
      const int32_t* row = image.const_data_ptr<int32_t>() + y * image.stride(0);
      int32_t* out = resized.data_ptr<int32_t>() + y * resized.stride(0);
      for (int64_t i = 0; i < width * channels; ++i) {
        const int64_t x = i / channels;
        out[i] = weighted_sum_16(row + taps.first[x] * channels + i % channels, channels,
                                 taps.weights.data() + x * taps.stride, taps.count[x]);
      }
    }
    return resized;
  }
  const std::vector<int32_t> weights = taps.fixed_weights();
  const int64_t in_bytes = image.size(1) * channels;
  std::vector<uint8_t> transposed(static_cast<size_t>(in_bytes * kLanes));
  for (int64_t y = 0; y < height; y += kLanes) {
    resize_rows(image.const_data_ptr<uint8_t>() + y * image.stride(0), image.stride(0), in_bytes,
                std::min<int64_t>(kLanes, height - y), channels, taps, weights.data(), transposed.data(),
                resized.data_ptr<uint8_t>() + y * resized.stride(0), resized.stride(0));
  }
  return resized;
}

at::Tensor resize_height(const at::Tensor& image, const ResizeTaps& taps) {
  const auto height = static_cast<int64_t>(taps.first.size());
  const int64_t row_size = image.size(1) * image.size(2);
  at::Tensor resized = at::empty({height, image.size(1), image.size(2)}, image.options());
  if (image.scalar_type() == at::kInt) {
    for (int64_t y = 0; y < height; ++y) {
      const int32_t* rows = image.const_data_ptr<int32_t>() + taps.first[y] * image.stride(0);
      int32_t* out = resized.data_ptr<int32_t>() + y * row_size;
      for (int64_t x = 0; x < row_size; ++x) {
        out[x] = weighted_sum_16(rows + x, image.stride(0), taps.weights.data() + y * taps.stride, taps.count[y]);
      }
    }
    return resized;
  }
  if (row_size < kLanes) {
    const at::Tensor wide =
        at::constant_pad_nd(image.reshape({image.size(0), row_size, 1}), {0, 0, 0, kLanes - row_size});
    return resize_height(wide, taps).slice(1, 0, row_size).reshape(resized.sizes());
  }
  const std::vector<int32_t> weights = taps.fixed_weights();
  for (int64_t y = 0; y < height; ++y) {
    resize_columns(image.const_data_ptr<uint8_t>() + taps.first[y] * image.stride(0), image.stride(0), row_size,
                   weights.data() + y * taps.stride, taps.count[y], resized.data_ptr<uint8_t>() + y * row_size);
  }
  return resized;
}

}  // namespace prefusion::images
