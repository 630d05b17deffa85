#include "shapes/taste.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "shapes/segmentation.h"

namespace prefusion::shapes {
namespace {

// Canvas pixels are half pixels of the 64x64 picture.
constexpr int kEdgeOutside = 3 * kCanvasScale;  // how far an edge is looked for around an object
constexpr int kEdgeInside = 4 * kCanvasScale;
constexpr int kBackgroundDistance =
    4 * kCanvasScale;  // leaves out soft edges and the ringing a decoder puts beside them
// Widths of edges in px of the 64x64 picture: drawn ones measure 0.6 to 1.1, one pass of blur makes them 1.4.
constexpr double kSharpEdgeWidth = 1.0;
constexpr double kEdgeWidthScale = 1.2;
constexpr double kBlobContrast = 18;  // grey levels, after a small blur: three times the noise that is still invisible
constexpr double kMinBlobArea = 2;    // px^2
constexpr double kMinBackgroundShare = 0.02;

cv::Mat disc(int radius) {
  return cv::getStructuringElement(cv::MORPH_ELLIPSE, cv::Size(2 * radius + 1, 2 * radius + 1));
}

cv::Mat fill(const Region& region, cv::Size size) {
  cv::Mat mask = cv::Mat::zeros(size, CV_8UC1);
  cv::drawContours(mask, std::vector<std::vector<cv::Point>>{region.contour}, 0, cv::Scalar(255), cv::FILLED);
  return mask;
}

cv::Mat object_mask(const Segmentation& segmentation) {
  cv::Mat mask = cv::Mat::zeros(segmentation.canvas.size(), CV_8UC1);
  for (const Region& region : segmentation.regions) mask |= fill(region, mask.size());
  return mask;
}

double median(const cv::Mat& values, const cv::Mat& mask) {
  std::vector<uint8_t> inside;
  for (int y = 0; y < values.rows; ++y) {
    for (int x = 0; x < values.cols; ++x) {
      if (mask.at<uint8_t>(y, x) != 0) inside.push_back(values.at<uint8_t>(y, x));
    }
  }
  auto middle = inside.begin() + static_cast<std::ptrdiff_t>(inside.size() / 2);
  std::nth_element(inside.begin(), middle, inside.end());
  return *middle;
}

// Mean width of the transition between objects and background, px. With m the chroma as a share of the object's, 4 m (1
// - m) is 1 in the middle of an edge and 0 off it; its sum over the surroundings of the boundary, divided by the length
// of the boundary, is a width: 2/3 px for an antialiased edge, 2.3 sigma for a blurred one. Tenths at either end are
// cut, so that flat noise counts nothing. All objects are convex, so notches that a ragged edge leaves under the hull
// are added.
double edge_width(const Segmentation& segmentation) {
  double soft_area = 0, length = 0;
  cv::Mat counted = cv::Mat::zeros(segmentation.canvas.size(), CV_8UC1);
  for (const Region& region : segmentation.regions) {
    const cv::Mat mask = fill(region, counted.size());
    const double full = std::max(1.0, median(segmentation.chroma, mask));
    cv::Mat outer, inner;
    cv::dilate(mask, outer, disc(kEdgeOutside));
    cv::erode(mask, inner, disc(kEdgeInside));
    for (int y = 0; y < mask.rows; ++y) {
      for (int x = 0; x < mask.cols; ++x) {
        if (outer.at<uint8_t>(y, x) == 0 || inner.at<uint8_t>(y, x) != 0 || counted.at<uint8_t>(y, x) != 0) continue;
        counted.at<uint8_t>(y, x) = 1;
        const double share = std::clamp((segmentation.chroma.at<uint8_t>(y, x) / full - 0.1) / 0.8, 0.0, 1.0);
        soft_area += 4 * share * (1 - share);
      }
    }
    std::vector<cv::Point> hull;
    cv::convexHull(region.contour, hull);
    soft_area += cv::contourArea(hull) - cv::contourArea(region.contour);
    length += cv::arcLength(hull, /*closed=*/true);
  }
  return soft_area / length / kCanvasScale;
}

int count_blobs(const cv::Mat& canvas, const cv::Scalar& background, const cv::Mat& near_objects) {
  cv::Mat smooth, difference;
  cv::GaussianBlur(canvas, smooth, cv::Size(5, 5), 0);
  cv::absdiff(smooth, background, difference);
  cv::Mat mask = cv::Mat::zeros(canvas.size(), CV_8UC1);
  for (int y = 0; y < canvas.rows; ++y) {
    for (int x = 0; x < canvas.cols; ++x) {
      const cv::Vec3b& pixel = difference.at<cv::Vec3b>(y, x);
      const bool stands_out = std::max({pixel[0], pixel[1], pixel[2]}) > kBlobContrast;
      if (stands_out && near_objects.at<uint8_t>(y, x) == 0) mask.at<uint8_t>(y, x) = 255;
    }
  }
  cv::Mat labels, statistics, centres;
  const int count = cv::connectedComponentsWithStats(mask, labels, statistics, centres);
  int blobs = 0;
  for (int label = 1; label < count; ++label) {
    if (statistics.at<int>(label, cv::CC_STAT_AREA) >= kMinBlobArea * kCanvasScale * kCanvasScale) ++blobs;
  }
  return blobs;
}

}  // namespace

double taste_score(double background, double edge_cleanliness, int stray_blobs) {
  const double lightness = background / 255;
  return 0.5 * lightness * lightness + 0.3 * edge_cleanliness + 0.2 / (1 + stray_blobs);
}

Taste taste(const at::Tensor& image) {
  const Segmentation segmentation = segment(image);
  cv::Mat near_objects;
  cv::dilate(object_mask(segmentation), near_objects, disc(kBackgroundDistance));
  cv::Mat away = near_objects == 0;
  const double share = cv::countNonZero(away) / static_cast<double>(away.total());
  if (share < kMinBackgroundShare) away.setTo(255);  // objects everywhere: the whole picture is its own background
  const cv::Scalar mean = cv::mean(segmentation.canvas, away);

  Taste result;
  result.background = 0.299 * mean[0] + 0.587 * mean[1] + 0.114 * mean[2];  // luma of ITU-R BT.601
  if (!segmentation.regions.empty()) {
    const double excess = std::max(0.0, edge_width(segmentation) - kSharpEdgeWidth);
    result.edge_cleanliness = std::exp(-excess / kEdgeWidthScale);
  }
  result.stray_blobs = count_blobs(segmentation.canvas, mean, near_objects);
  result.score = taste_score(result.background, result.edge_cleanliness, result.stray_blobs);
  return result;
}

}  // namespace prefusion::shapes
