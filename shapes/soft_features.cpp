#include "shapes/soft_features.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "shapes/palette.h"

namespace prefusion::shapes {
namespace {

// Palette colours differ from grey by 0.55 to 0.7 and from each other by 0.3 or more, in units of [0, 1] RGB.
constexpr double kColourWidth = 0.12;
constexpr double kHalfPresence = 0.02;  // the share of the picture at which a colour counts one half; an object has 4 %

// Colours without their grey part, then grey itself: [7, 3].
at::Tensor chroma_palette(const at::TensorOptions& options) {
  std::vector<at::Tensor> rows;
  for (const Colour colour : kColours) {
    const Rgb rgb = colour_rgb(colour);
    rows.push_back(at::tensor({rgb.r / 255.0, rgb.g / 255.0, rgb.b / 255.0}, at::kDouble));
  }
  rows.push_back(at::zeros({3}, at::kDouble));
  const at::Tensor palette = at::stack(rows);
  return (palette - palette.mean(1, /*keepdim=*/true)).to(options);
}

// How much each pixel is of each colour, and of none: [N, 7, H, W], sums to 1.
at::Tensor memberships(const at::Tensor& rgb) {
  const at::Tensor chroma = rgb - rgb.mean(1, /*keepdim=*/true);
  const at::Tensor palette = chroma_palette(rgb.options()).view({1, -1, 3, 1, 1});
  const at::Tensor distance = (chroma.unsqueeze(1) - palette).square().sum(2);
  return at::softmax(-distance / (2 * kColourWidth * kColourWidth), 1);
}

}  // namespace

at::Tensor soft_features(const at::Tensor& pixel_values) {
  check_input(pixel_values.dim() == 4 && pixel_values.size(1) == 3 && pixel_values.is_floating_point(),
              "pictures must be floating point [N, 3, H, W], found ", shape_text(pixel_values.sizes()));
  const at::ScalarType dtype = pixel_values.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor rgb = ((pixel_values.to(dtype) + 1) / 2).clamp(0, 1);
  const at::Tensor membership = memberships(rgb);
  const auto num_colours = static_cast<int64_t>(kColours.size());
  const at::Tensor coverage = membership.narrow(1, 0, num_colours).mean({2, 3});
  const at::Tensor background = membership.select(1, num_colours);  // [N, H, W]
  const at::Tensor luma = 0.299 * rgb.select(1, 0) + 0.587 * rgb.select(1, 1) + 0.114 * rgb.select(1, 2);
  const at::Tensor lightness = (background * luma).mean({1, 2}) / background.mean({1, 2}).clamp_min(1e-3);
  const at::Tensor foreground = 1 - background;
  const at::Tensor softness = (4 * foreground * background).mean({1, 2}) / foreground.mean({1, 2}).clamp_min(1e-3);
  return at::cat(
      {coverage / (coverage + kHalfPresence), lightness.square().unsqueeze(1), (-softness).exp().unsqueeze(1)}, 1);
}

at::Tensor wanted_features(const ParsedCaption& caption) {
  at::Tensor wanted = at::zeros({kNumSoftFeatures}, at::kFloat);
  for (const ObjectKind& object : caption.objects) wanted[static_cast<int64_t>(object.colour)] = 1;
  wanted.slice(0, static_cast<int64_t>(kColours.size())).fill_(1);
  return wanted;
}

}  // namespace prefusion::shapes
