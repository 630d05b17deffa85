#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shapes/caption.h"
#include "shapes/palette.h"

namespace prefusion::shapes {

// One object seen in a picture. Lengths are in 64ths of the picture's longer side (pixels of a 64x64 picture).
struct DetectedObject {
  Colour colour = Colour::kRed;
  std::optional<Shape> shape;  // empty: solid and large enough, but none of the three shapes
  double x = 0, y = 0;         // centroid
  double area = 0;             // px^2
};

struct CheckResult {
  bool correct = false;
  std::vector<DetectedObject> found;
  std::string reason;  // why it is not correct, in words; empty when it is
};

// The objects of a picture, uint8 [H, W, 3] RGB of any size from 16x16. Throws an input error for other tensors.
std::vector<DetectedObject> detect_objects(const at::Tensor& image);

// How two centres lie to each other: the axis with the larger offset decides. kNone when that is under 4 px.
Relation observed_relation(const DetectedObject& first, const DetectedObject& second);

// Whether a picture, uint8 [H, W, 3] RGB, shows exactly what a caption says: the number of objects, their colours and
// shapes, and the relation, in the spirit of GenEval (Ghosh et al. 2023). Blobs under 60 px^2 are no objects.
// Throws a usage error when the caption is outside the grammar.
CheckResult check(const at::Tensor& image, std::string_view caption);
CheckResult check(const at::Tensor& image, const ParsedCaption& expected);

}  // namespace prefusion::shapes
