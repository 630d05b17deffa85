#pragma once

#include <ATen/core/Tensor.h>

#include "shapes/caption.h"

// A differentiable stand-in for the judge: what gradients of pixels can be told about a picture of the shapes world.
// It sees colours, the lightness of the background and how clean edges are; it does not see what shape an object has,
// how many there are of a colour, or where they lie. docs/shapes.md has the formulas.
namespace prefusion::shapes {

// Six colours (order of kColours), then lightness and cleanness.
constexpr int64_t kNumSoftFeatures = 8;

// pixel_values [N, 3, H, W], about [-1, 1], clamped to it -> [N, 8] fp32 (fp64 for fp64 pixels), each in 0..1,
// differentiable:
//   colour     c / (c + 0.02), c the share of the picture that has it
//   lightness  the square of the background's mean luma
//   cleanness  exp(-a / m), a the mean of 4 m_p (1 - m_p) and m that of m_p, the degree to which a pixel is no
//   background
// Input error for another shape.
at::Tensor soft_features(const at::Tensor& pixel_values);

// What the features of a picture of this caption should be: 1 for the colours it names, lightness and cleanness, else
// 0. [8] fp32
at::Tensor wanted_features(const ParsedCaption& caption);

}  // namespace prefusion::shapes
