#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/rng.h"
#include "shapes/caption.h"
#include "shapes/palette.h"

namespace prefusion::shapes {

// One drawn object. Lengths are in pixels of the 64x64 picture; drawing rounds them to quarters of a pixel.
// `radius` is that of the circle; a square has about its area (half side 0.886 radius), a triangle is upright and
// equilateral with the corners 1.35 radius from its centre, the centroid.
struct SceneObject {
  Colour colour = Colour::kRed;
  Shape shape = Shape::kCircle;
  double x = kPictureSize / 2.0;
  double y = kPictureSize / 2.0;
  double radius = 12;
};

// A small disc that no caption mentions: what good taste avoids.
struct Blob {
  double x = 0;
  double y = 0;
  double radius = 2;  // under 3 px, so that it is never taken for an object
  Rgb colour;
};

struct Scene {
  std::vector<SceneObject> objects;     // one or two
  Relation relation = Relation::kNone;  // how objects[0] lies to objects[1]
  int background = 230;                 // grey level, 0-255
  std::vector<Blob> blobs;
  int blur_passes = 0;  // passes of the 3x3 binomial filter over the finished picture; each adds a variance of 0.5 px^2
};

// How far an object reaches from its centre.
struct Extent {
  double left, right, up, down;
};
Extent extent(Shape shape, double radius);

std::string caption(const Scene& scene);

// A random picture of a caption: one object of radius 9-16 px, or two of 7-11 px at least 4 px apart whose offset along
// the relation's axis is at least twice the one across it. Taste varies: backgrounds from 150 to 250, one or two blobs
// in a quarter of the scenes, blur in another quarter, independently. Throws a usage error when the caption is outside
// the grammar.
Scene scene_for_caption(std::string_view caption, CounterRng& rng);
Scene scene_for_caption(const ParsedCaption& parsed, CounterRng& rng);

// A random training scene: sample_caption (never held out), then scene_for_caption.
Scene sample_scene(CounterRng& rng);

// The picture, uint8 [64, 64, 3] RGB: painted at four times the size, then averaged. Integer arithmetic throughout, so
// the same bytes on every machine.
at::Tensor render(const Scene& scene);

// Pictures for a model: float [B, 3, 64, 64] in [-1, 1].
at::Tensor render_batch(std::span<const Scene> scenes);

}  // namespace prefusion::shapes
