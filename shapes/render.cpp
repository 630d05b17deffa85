#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "core/error.h"
#include "shapes/scene.h"

namespace prefusion::shapes {
namespace {

constexpr int kOversampling = 4;
constexpr int kCanvasSize = kPictureSize * kOversampling;

// Geometry on the oversampled canvas is in half cells, so that cell centres (odd numbers) and quarter pixels (even
// numbers) are both integers and no test depends on how a machine rounds.

int64_t half_cells(double pixels) {
  return 2 * std::llround(pixels * kOversampling);
}

struct Point {
  int64_t x, y;
};

using Canvas = std::array<Rgb, kCanvasSize * kCanvasSize>;

template <typename Inside>
void paint(Canvas& canvas, Rgb colour, Inside inside) {
  for (int y = 0; y < kCanvasSize; ++y) {
    for (int x = 0; x < kCanvasSize; ++x) {
      if (inside(Point{2 * x + 1, 2 * y + 1})) canvas[static_cast<size_t>(y * kCanvasSize + x)] = colour;
    }
  }
}

void paint_disc(Canvas& canvas, Rgb colour, double x, double y, double radius) {
  const Point centre{half_cells(x), half_cells(y)};
  const int64_t reach = half_cells(radius);
  paint(canvas, colour, [=](Point p) {
    const int64_t dx = p.x - centre.x, dy = p.y - centre.y;
    return dx * dx + dy * dy <= reach * reach;
  });
}

// Twice the signed area of (a, b, c): its sign says on which side of the line a-b the point c lies.
int64_t cross(Point a, Point b, Point c) {
  return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
}

void paint_object(Canvas& canvas, const SceneObject& object) {
  const Rgb colour = colour_rgb(object.colour);
  const Extent reach = extent(object.shape, object.radius);
  const int64_t left = half_cells(object.x - reach.left), right = half_cells(object.x + reach.right);
  const int64_t top = half_cells(object.y - reach.up), bottom = half_cells(object.y + reach.down);
  switch (object.shape) {
    case Shape::kCircle: paint_disc(canvas, colour, object.x, object.y, object.radius); break;
    case Shape::kSquare:
      paint(canvas, colour, [=](Point p) { return p.x > left && p.x < right && p.y > top && p.y < bottom; });
      break;
    case Shape::kTriangle: {
      const Point apex{half_cells(object.x), top}, low_right{right, bottom}, low_left{left, bottom};
      paint(canvas, colour, [=](Point p) {
        return cross(apex, low_right, p) >= 0 && cross(low_right, low_left, p) >= 0 && cross(low_left, apex, p) >= 0;
      });
      break;
    }
  }
}

void reduce(const Canvas& canvas, uint8_t* picture) {
  constexpr int kCells = kOversampling * kOversampling;
  for (int y = 0; y < kPictureSize; ++y) {
    for (int x = 0; x < kPictureSize; ++x) {
      int r = kCells / 2, g = kCells / 2, b = kCells / 2;
      for (int cell = 0; cell < kCells; ++cell) {
        const int row = y * kOversampling + cell / kOversampling, column = x * kOversampling + cell % kOversampling;
        const Rgb& colour = canvas[static_cast<size_t>(row * kCanvasSize + column)];
        r += colour.r, g += colour.g, b += colour.b;
      }
      uint8_t* pixel = picture + (y * kPictureSize + x) * 3;
      pixel[0] = static_cast<uint8_t>(r / kCells);
      pixel[1] = static_cast<uint8_t>(g / kCells);
      pixel[2] = static_cast<uint8_t>(b / kCells);
    }
  }
}

// One pass of the 3x3 binomial filter [1 2 1; 2 4 2; 1 2 1] / 16; the border repeats its nearest pixel.
void blur(std::vector<uint8_t>& picture) {
  const std::vector<uint8_t> source = picture;
  const auto at = [&source](int y, int x, int channel) -> int {
    y = std::min(std::max(y, 0), kPictureSize - 1);
    x = std::min(std::max(x, 0), kPictureSize - 1);
    return source[static_cast<size_t>((y * kPictureSize + x) * 3 + channel)];
  };
  const auto row = [&at](int y, int x, int channel) {
    return at(y, x - 1, channel) + 2 * at(y, x, channel) + at(y, x + 1, channel);
  };
  for (int y = 0; y < kPictureSize; ++y) {
    for (int x = 0; x < kPictureSize; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        const int sum = row(y - 1, x, channel) + 2 * row(y, x, channel) + row(y + 1, x, channel);
        picture[static_cast<size_t>((y * kPictureSize + x) * 3 + channel)] = static_cast<uint8_t>((sum + 8) / 16);
      }
    }
  }
}

}  // namespace

at::Tensor render(const Scene& scene) {
  check_usage(scene.background >= 0 && scene.background <= 255, "background must be a grey level from 0 to 255, got ",
              scene.background);
  const auto grey = static_cast<uint8_t>(scene.background);
  Canvas canvas;
  canvas.fill(Rgb{grey, grey, grey});
  for (const Blob& blob : scene.blobs) paint_disc(canvas, blob.colour, blob.x, blob.y, blob.radius);
  for (const SceneObject& object : scene.objects) paint_object(canvas, object);
  std::vector<uint8_t> picture(static_cast<size_t>(kPictureSize * kPictureSize * 3));
  reduce(canvas, picture.data());
  for (int pass = 0; pass < scene.blur_passes; ++pass) blur(picture);
  return at::from_blob(picture.data(), {kPictureSize, kPictureSize, 3}, at::kByte).clone();
}

at::Tensor render_batch(std::span<const Scene> scenes) {
  at::Tensor batch = at::empty({static_cast<int64_t>(scenes.size()), 3, kPictureSize, kPictureSize}, at::kFloat);
  for (size_t i = 0; i < scenes.size(); ++i) {
    const at::Tensor picture = render(scenes[i]).permute({2, 0, 1});  // [3, 64, 64]
    batch.select(0, static_cast<int64_t>(i)).copy_(picture.to(at::kFloat).div_(127.5).sub_(1.0));
  }
  return batch;
}

}  // namespace prefusion::shapes
