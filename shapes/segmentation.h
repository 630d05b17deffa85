#pragma once

#include <ATen/core/Tensor.h>

#include <opencv2/core.hpp>
#include <vector>

#include "shapes/palette.h"

namespace prefusion::shapes {

// Pictures of every size are looked at on a canvas whose longer side is 128: twice the drawn size, so that thresholds
// fall between the pixels of a 64x64 picture rather than on them.
constexpr int kCanvasScale = 2;

// A solid region of one palette colour, large enough to be an object.
struct Region {
  Colour colour;
  std::vector<cv::Point> contour;  // outer boundary, canvas pixels
};

struct Segmentation {
  cv::Mat canvas;               // CV_8UC3, RGB
  cv::Mat chroma;               // CV_8UC1: the largest channel minus the smallest, 0 for greys
  std::vector<Region> regions;  // sorted by colour, then from top to bottom
};

// Resizes a picture, uint8 [H, W, 3], and finds its objects. Throws an input error for other tensors.
Segmentation segment(const at::Tensor& image);

}  // namespace prefusion::shapes
