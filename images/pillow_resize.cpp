#include "images/pillow_resize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"

namespace prefusion::images {
namespace {

constexpr int kPrecisionBits = 32 - 8 - 2;  // 8 bits of pixel and two of headroom for overshoot beside the weight

double triangle(double x) {
  return std::max(0.0, 1.0 - std::abs(x));
}

// Keys' cubic convolution kernel with a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// The source pixels each output pixel takes and their weights.
struct Taps {
  std::vector<int64_t> first;
  std::vector<int64_t> count;
  std::vector<int32_t> weights;  // `stride` for each output pixel
  int64_t stride = 0;
};

Taps make_taps(int64_t in_size, int64_t out_size, ResizeFilter filter) {
  const bool is_cubic = filter == ResizeFilter::kBicubic;
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  const double filter_scale = std::max(scale, 1.0);
  const double support = (is_cubic ? 2.0 : 1.0) * filter_scale;
  Taps taps;
  taps.stride = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  taps.weights.resize(static_cast<size_t>(taps.stride * out_size));
  std::vector<double> weights(static_cast<size_t>(taps.stride));
  for (int64_t out = 0; out < out_size; ++out) {
    const double centre = (static_cast<double>(out) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
    const auto last = std::min<int64_t>(in_size, static_cast<int64_t>(centre + support + 0.5));
    double sum = 0.0;
    const double inverse = 1.0 / filter_scale;
    for (int64_t i = first; i < last; ++i) {
      const double x = (static_cast<double>(i - first) + static_cast<double>(first) - centre + 0.5) * inverse;
      weights[i - first] = is_cubic ? cubic(x) : triangle(x);
      sum += weights[i - first];
    }
    for (int64_t i = 0; i < last - first; ++i) {
      const double fixed = (sum != 0.0 ? weights[i] / sum : weights[i]) * (1 << kPrecisionBits);
      taps.weights[out * taps.stride + i] = static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    }
    taps.first.push_back(first);
    taps.count.push_back(last - first);
  }
  return taps;
}

uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);

// The number of channels is fixed at compile time, which keeps the sums in registers.
template <int kChannels>
void resize_rows(const uint8_t* in, int64_t height, int64_t in_width, const Taps& taps, uint8_t* out) {
  const auto out_width = static_cast<int64_t>(taps.first.size());
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* row = in + y * in_width * kChannels;
    for (int64_t x = 0; x < out_width; ++x) {
      const int32_t* weights = taps.weights.data() + x * taps.stride;
      const uint8_t* pixels = row + taps.first[x] * kChannels;
      int32_t sums[kChannels];
      std::fill_n(sums, kChannels, kHalf);
      for (int64_t i = 0; i < taps.count[x]; ++i) {
        for (int c = 0; c < kChannels; ++c) sums[c] += pixels[i * kChannels + c] * weights[i];
      }
      for (int c = 0; c < kChannels; ++c) *out++ = to_byte(sums[c]);
    }
  }
}

void resize_columns(const uint8_t* in, int64_t row_size, const Taps& taps, uint8_t* out) {
  std::vector<int32_t> sums(static_cast<size_t>(row_size));
  for (size_t y = 0; y < taps.first.size(); ++y) {
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int64_t i = 0; i < taps.count[y]; ++i) {
      const int32_t weight = taps.weights[y * taps.stride + i];
      const uint8_t* row = in + (taps.first[y] + i) * row_size;
      for (int64_t x = 0; x < row_size; ++x) sums[x] += row[x] * weight;
    }
    for (const int32_t sum : sums) *out++ = to_byte(sum);
  }
}

}  // namespace

at::Tensor pillow_resize(const at::Tensor& image, int64_t height, int64_t width, ResizeFilter filter) {
  const bool is_image = image.dim() == 3 && image.scalar_type() == at::kByte && image.numel() > 0 &&
                        (image.size(2) == 1 || image.size(2) == 3 || image.size(2) == 4);
  check_usage(is_image && height > 0 && width > 0,
              "pillow_resize takes uint8 [H, W, 1, 3 or 4] and a positive size, got ", shape_text(image.sizes()),
              " to ", height, "x", width);
  at::Tensor current = image.contiguous();
  const auto resize_width = [&] {
    if (width == current.size(1)) return;
    const int64_t channels = current.size(2);
    at::Tensor resized = at::empty({current.size(0), width, channels}, at::kByte);
    const auto resize = channels == 3 ? resize_rows<3> : channels == 1 ? resize_rows<1> : resize_rows<4>;
    resize(current.const_data_ptr<uint8_t>(), current.size(0), current.size(1),
           make_taps(current.size(1), width, filter), resized.data_ptr<uint8_t>());
    current = resized;
  };
  const auto resize_height = [&] {
    if (height == current.size(0)) return;
    at::Tensor resized = at::empty({height, current.size(1), current.size(2)}, at::kByte);
    resize_columns(current.const_data_ptr<uint8_t>(), current.size(1) * current.size(2),
                   make_taps(current.size(0), height, filter), resized.data_ptr<uint8_t>());
    current = resized;
  };
  // The first pass decides the rounding of the second. Pillow 13 begins with the height where that loses much more.
  const bool height_first = image.size(0) - height > 2 * std::max<int64_t>(0, image.size(1) - width);
  if (height_first) resize_height();
  resize_width();
  resize_height();
  return current;
}

}  // namespace prefusion::images
