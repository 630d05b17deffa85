#include "shapes/segmentation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "core/error.h"

namespace prefusion::shapes {
namespace {

constexpr int kMinSide = 16;
constexpr double kMinObjectArea = 60;  // px^2; the smallest drawn object has 116
// A pixel belongs to a colour from this share of the palette colour's chroma: near one half, where an antialiased edge
// has its true position, and below it, because generated colours are a little pale.
constexpr double kMinChromaShare = 0.45;
constexpr int kNoColour = -1;

int chroma_of(int r, int g, int b) {
  return std::max({r, g, b}) - std::min({r, g, b});
}

// Hue in degrees, [0, 360); meaningless for greys.
double hue_of(int r, int g, int b) {
  const double chroma = chroma_of(r, g, b);
  const int largest = std::max({r, g, b});
  double sextant;
  if (largest == r) {
    sextant = (g - b) / chroma;
  } else if (largest == g) {
    sextant = (b - r) / chroma + 2;
  } else {
    sextant = (r - g) / chroma + 4;
  }
  return std::fmod(60 * sextant + 360, 360);
}

struct PaletteEntry {
  double hue, min_chroma;
};

std::array<PaletteEntry, kColours.size()> palette_entries() {
  std::array<PaletteEntry, kColours.size()> entries;
  for (size_t i = 0; i < kColours.size(); ++i) {
    const Rgb rgb = colour_rgb(kColours[i]);
    entries[i] = {hue_of(rgb.r, rgb.g, rgb.b), kMinChromaShare * chroma_of(rgb.r, rgb.g, rgb.b)};
  }
  return entries;
}

// The palette colour of the nearest hue, if there is enough chroma to be sure. Hue rather than the distance in RGB: an
// edge blends object and background, which changes chroma and lightness but not the hue.
int label_of(const std::array<PaletteEntry, kColours.size()>& palette, const cv::Vec3b& pixel) {
  const int chroma = chroma_of(pixel[0], pixel[1], pixel[2]);
  if (chroma == 0) return kNoColour;
  const double hue = hue_of(pixel[0], pixel[1], pixel[2]);
  int nearest = 0;
  double smallest = 360;
  for (size_t i = 0; i < palette.size(); ++i) {
    const double difference = std::abs(hue - palette[i].hue);
    const double distance = std::min(difference, 360 - difference);
    if (distance < smallest) smallest = distance, nearest = static_cast<int>(i);
  }
  return chroma >= palette[static_cast<size_t>(nearest)].min_chroma ? nearest : kNoColour;
}

cv::Mat to_canvas(const at::Tensor& image) {
  check_input(image.defined() && image.dim() == 3 && image.size(2) == 3 && image.scalar_type() == at::kByte,
              "a picture of the shapes world must be uint8 [H, W, 3], got ",
              image.defined() ? concat(image.scalar_type(), ' ', shape_text(image.sizes())) : "nothing");
  const int64_t height = image.size(0), width = image.size(1);
  check_input(std::min(height, width) >= kMinSide, "a picture of the shapes world must be at least ", kMinSide, "x",
              kMinSide, ", got ", height, "x", width);
  const at::Tensor pixels = image.cpu().contiguous();
  const cv::Mat picture(static_cast<int>(height), static_cast<int>(width), CV_8UC3, pixels.data_ptr());
  constexpr int kCanvasSide = kPictureSize * kCanvasScale;
  const double scale = static_cast<double>(kCanvasSide) / static_cast<double>(std::max(height, width));
  const cv::Size size(std::max(1, static_cast<int>(std::lround(scale * static_cast<double>(width)))),
                      std::max(1, static_cast<int>(std::lround(scale * static_cast<double>(height)))));
  cv::Mat canvas;
  cv::resize(picture, canvas, size, 0, 0, scale < 1 ? cv::INTER_AREA : cv::INTER_LINEAR);
  return canvas;
}

void add_regions(const cv::Mat& labels, Colour colour, std::vector<Region>& regions) {
  cv::Mat mask;
  cv::compare(labels, static_cast<int>(colour), mask, cv::CMP_EQ);
  // About 3x3 in pixels of the 64x64 picture: removes specks and the thin bridges between an object and its neighbours.
  const cv::Mat kernel = cv::getStructuringElement(cv::MORPH_ELLIPSE, cv::Size(5, 5));
  cv::morphologyEx(mask, mask, cv::MORPH_OPEN, kernel);
  std::vector<std::vector<cv::Point>> contours;
  cv::findContours(mask, contours, cv::RETR_EXTERNAL, cv::CHAIN_APPROX_NONE);
  std::vector<Region> found;
  for (std::vector<cv::Point>& contour : contours) {
    if (cv::contourArea(contour) < kMinObjectArea * kCanvasScale * kCanvasScale) continue;
    found.push_back({colour, std::move(contour)});
  }
  std::sort(found.begin(), found.end(), [](const Region& a, const Region& b) {
    return cv::boundingRect(a.contour).y < cv::boundingRect(b.contour).y;
  });
  std::move(found.begin(), found.end(), std::back_inserter(regions));
}

}  // namespace

Segmentation segment(const at::Tensor& image) {
  Segmentation result;
  result.canvas = to_canvas(image);
  result.chroma.create(result.canvas.size(), CV_8UC1);
  cv::Mat labels(result.canvas.size(), CV_8SC1);
  const auto palette = palette_entries();
  for (int y = 0; y < result.canvas.rows; ++y) {
    for (int x = 0; x < result.canvas.cols; ++x) {
      const cv::Vec3b& pixel = result.canvas.at<cv::Vec3b>(y, x);
      result.chroma.at<uint8_t>(y, x) = static_cast<uint8_t>(chroma_of(pixel[0], pixel[1], pixel[2]));
      labels.at<int8_t>(y, x) = static_cast<int8_t>(label_of(palette, pixel));
    }
  }
  for (Colour colour : kColours) add_regions(labels, colour, result.regions);
  return result;
}

}  // namespace prefusion::shapes
