#include "reward_models/picture_preparation.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::reward_models {

std::string PicturePreparation::key() const {
  std::ostringstream out;
  out.precision(17);
  out << static_cast<int>(recipe) << ' ' << converts_to_rgb << ' ' << resizes << ' ' << shortest_edge << ' '
      << resize_height << 'x' << resize_width << ' ' << static_cast<int>(filter) << ' ' << antialias << ' ' << crops
      << ' ' << crop_height << 'x' << crop_width << ' ' << rescale_factor;
  for (int c = 0; c < 3; ++c) out << ' ' << mean[c] << ' ' << std[c];
  return out.str();
}

PicturePreparation read_picture_preparation(const std::filesystem::path&) {
  return {};
}

at::Tensor prepare_picture(const images::Picture& picture, const PicturePreparation& preparation) {
  const int64_t edge = preparation.shortest_edge;
  const int64_t shorter = std::min(picture.height(), picture.width());
  const at::Tensor resized = images::pillow_resize(picture.pixels, picture.height() * edge / shorter,
                                                   picture.width() * edge / shorter, preparation.filter);
  const int64_t top = (resized.size(0) - preparation.crop_height) / 2;
  const int64_t left = (resized.size(1) - preparation.crop_width) / 2;
  const at::Tensor cropped =
      resized.slice(0, top, top + preparation.crop_height).slice(1, left, left + preparation.crop_width);
  const at::Tensor mean = at::tensor(at::ArrayRef<double>(preparation.mean), at::kFloat).view({3, 1, 1});
  const at::Tensor std = at::tensor(at::ArrayRef<double>(preparation.std), at::kFloat).view({3, 1, 1});
  return (cropped.permute({2, 0, 1}).to(at::kFloat) * preparation.rescale_factor - mean) / std;
}

}  // namespace prefusion::reward_models
