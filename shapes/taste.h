#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::shapes {

// How pleasing a picture is, whatever it shows: light background, clean edges, nothing stray.
struct Taste {
  double background = 0;        // mean grey level away from the objects, 0-255
  double edge_cleanliness = 0;  // 1 for edges as sharp as drawn ones, towards 0 for blurred or ragged ones
  int stray_blobs = 0;          // specks off the objects that differ from the background
  double score = 0;             // 0..1, taste_score of the three
};

// 0.5 (background / 255)^2 + 0.3 edge_cleanliness + 0.2 / (1 + stray_blobs): strictly rising with lightness and with
// clean edges, strictly falling with every blob. The square keeps apart the light greys, where most pictures lie.
double taste_score(double background, double edge_cleanliness, int stray_blobs);

// Taste of a picture, uint8 [H, W, 3] RGB of any size from 16x16; see docs/shapes.md for how each part is measured. A
// picture without an object has no clean edge: edge_cleanliness is 0. Throws an input error for other tensors.
Taste taste(const at::Tensor& image);

}  // namespace prefusion::shapes
