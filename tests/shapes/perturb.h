#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <opencv2/imgproc.hpp>

#include "core/rng.h"

namespace prefusion::shapes {

// A blurred copy of a picture, uint8 [H, W, 3], with Gaussian noise; either sigma may be 0.
inline at::Tensor perturb(const at::Tensor& picture, double blur_sigma, double noise_sigma, uint64_t item = 0) {
  at::Tensor result = picture.contiguous().clone();
  cv::Mat pixels(static_cast<int>(result.size(0)), static_cast<int>(result.size(1)), CV_8UC3, result.data_ptr());
  if (blur_sigma > 0) cv::GaussianBlur(pixels, pixels, cv::Size(), blur_sigma);
  if (noise_sigma == 0) return result;
  const at::Tensor noise = philox_randn(result.sizes(), DrawKey{23, item, 0}, RandomPurpose::kNoise);
  return (result.to(at::kFloat) + noise * noise_sigma).round().clamp(0, 255).to(at::kByte);
}

// A picture of another size, with the interpolation that suits the direction.
inline at::Tensor resized(const at::Tensor& picture, int height, int width) {
  at::Tensor result = at::empty({height, width, 3}, at::kByte);
  const at::Tensor source = picture.contiguous();
  const cv::Mat from(static_cast<int>(source.size(0)), static_cast<int>(source.size(1)), CV_8UC3, source.data_ptr());
  cv::Mat to(height, width, CV_8UC3, result.data_ptr());
  cv::resize(from, to, to.size(), 0, 0, height < from.rows ? cv::INTER_AREA : cv::INTER_CUBIC);
  return result;
}

}  // namespace prefusion::shapes
