#include "images/resize_taps.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace prefusion::images {
namespace {

double box(double x) {
  return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

double triangle(double x) {
  return std::max(0.0, 1.0 - std::abs(x));
}

double sinc(double x) {
  return x == 0.0 ? 1.0 : std::sin(x * M_PI) / (x * M_PI);
}

// Pillow writes its two constants in single precision.
double hamming(double x) {
  x = std::abs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x *= M_PI;
  return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));
}

// Keys' cubic convolution kernel with a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

double lanczos(double x) {
  return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

struct Kernel {
  double (*value)(double);
  double support;
};

Kernel kernel_of(ResizeFilter filter) {
  switch (filter) {
    case ResizeFilter::kBox: return {box, 0.5};
    case ResizeFilter::kBilinear: return {triangle, 1.0};
    case ResizeFilter::kHamming: return {hamming, 1.0};
    case ResizeFilter::kBicubic: return {cubic, 2.0};
    case ResizeFilter::kLanczos: return {lanczos, 3.0};
    case ResizeFilter::kNearest: break;
  }
  fail_usage("the nearest pixel is no weighted sum");
}

}  // namespace

std::vector<int32_t> ResizeTaps::fixed_weights() const {
  std::vector<int32_t> fixed(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const double weight = weights[i] * (1 << kResizeWeightBits);
    fixed[i] = static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
  }
  return fixed;
}

ResizeTaps make_resize_taps(int64_t in_size, int64_t out_size, int64_t out_begin, int64_t out_count,
                            ResizeFilter filter) {
  const Kernel kernel = kernel_of(filter);
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  const double filter_scale = std::max(scale, 1.0);
  const double support = kernel.support * filter_scale;
  const double inverse = 1.0 / filter_scale;
  ResizeTaps taps;
  taps.stride = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  taps.weights.resize(static_cast<size_t>(taps.stride * out_count));
  double* weights = taps.weights.data();
  for (int64_t out = out_begin; out < out_begin + out_count; ++out, weights += taps.stride) {
    const double centre = (static_cast<double>(out) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
    const auto last = std::min<int64_t>(in_size, static_cast<int64_t>(centre + support + 0.5));
    double sum = 0.0;
    for (int64_t i = first; i < last; ++i) {
      weights[i - first] = kernel.value((static_cast<double>(i) - centre + 0.5) * inverse);
      sum += weights[i - first];
    }
    if (sum != 0.0) {
      for (int64_t i = 0; i < last - first; ++i) weights[i] /= sum;
    }
    taps.first.push_back(first);
    taps.count.push_back(last - first);
  }
  taps.source_begin = taps.first.front();
  taps.source_end = taps.first.back() + taps.count.back();
  for (int64_t& first : taps.first) first -= taps.source_begin;
  return taps;
}

}  // namespace prefusion::images
