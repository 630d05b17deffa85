#include "nn/patch_embedding.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::nn {
namespace {

// [count, dim]: the sines and cosines of each place along one side. Places are rounded to fp32, angles are not: a grid
// of a checkpoint was made that way.
at::Tensor side_positions(int64_t count, int64_t dim, const PositionOptions& options) {
  const double step = static_cast<double>(count) / static_cast<double>(options.base_size);
  const at::Tensor places = at::arange(count, at::kFloat) / step / options.interpolation_scale;
  const at::Tensor exponents = at::arange(dim / 2, at::kDouble) / (static_cast<double>(dim) / 2.0);
  const at::Tensor angles = at::outer(places.to(at::kDouble), at::pow(10000.0, exponents).reciprocal());
  return at::cat({at::sin(angles), at::cos(angles)}, /*dim=*/1).to(at::kFloat);
}

}  // namespace

at::Tensor sin_cos_positions(int64_t height, int64_t width, const PositionOptions& options) {
  check_input(options.dim > 0 && options.dim % 4 == 0,
              "positions in the picture need a width that is a multiple of 4, ", "found ", options.dim);
  check_input(options.base_size > 0 && options.interpolation_scale > 0, "positions in the picture: base size ",
              options.base_size, " and interpolation scale ", options.interpolation_scale, " must be positive");
  const int64_t half = options.dim / 2;
  const at::Tensor columns = side_positions(width, half, options).unsqueeze(0).expand({height, width, half});
  const at::Tensor rows = side_positions(height, half, options).unsqueeze(1).expand({height, width, half});
  return at::cat({columns, rows}, /*dim=*/2).view({height * width, options.dim});
}

PatchEmbeddingImpl::PatchEmbeddingImpl(const PatchEmbeddingOptions& options) : options_(options) {
  const int64_t patch = options.patch_size;
  proj = register_module("proj", Conv2d(Conv2dOptions{.in_channels = options.in_channels,
                                                      .out_channels = options.positions.dim,
                                                      .kernel_size = patch,
                                                      .stride = patch,
                                                      .padding = 0}));
  if (options.max_size > 0) {
    // Allocated only: the grid of a large model has a gigabyte, and a checkpoint brings its own.
    pos_embed = register_buffer("pos_embed",
                                at::empty({1, options.max_size * options.max_size, options.positions.dim}, at::kFloat));
  }
}

at::Tensor PatchEmbeddingImpl::position_grid() const {
  return sin_cos_positions(options_.max_size, options_.max_size, options_.positions).unsqueeze(0);
}

at::Tensor PatchEmbeddingImpl::positions(int64_t height, int64_t width) {
  const int64_t side = options_.max_size;
  if (side > 0) {
    check_input(height <= side && width <= side, "latents of ", height, " x ", width, " patches are larger than the ",
                side, " x ", side, " patches this model has positions for (pos_embed_max_size)");
    const at::Tensor grid = pos_embed.view({side, side, -1});
    return grid.narrow(0, (side - height) / 2, height)
        .narrow(1, (side - width) / 2, width)
        .reshape({1, height * width, -1});
  }
  const at::Device device = proj->weight.device();
  at::Tensor& known = known_positions_[{height, width}];
  if (!known.defined() || known.device() != device) {
    known = sin_cos_positions(height, width, options_.positions).unsqueeze(0).to(device);
  }
  return known;
}

at::Tensor PatchEmbeddingImpl::forward(const at::Tensor& latents) {
  const int64_t patch = options_.patch_size;
  check_input(latents.size(2) % patch == 0 && latents.size(3) % patch == 0, "latents of ", latents.size(2), " x ",
              latents.size(3), " do not divide into patches of ", patch, " x ", patch);
  const at::Tensor tokens = proj->forward(latents).flatten(/*start_dim=*/2).transpose(1, 2).contiguous();
  return (tokens + positions(latents.size(2) / patch, latents.size(3) / patch)).to(tokens.scalar_type());
}

at::Tensor join_patches(const at::Tensor& tokens, int64_t height, int64_t width, int64_t patch_size) {
  const int64_t batch = tokens.size(0);
  return tokens.reshape({batch, height, width, patch_size, patch_size, -1})
      .permute({0, 5, 1, 3, 2, 4})  // [B, C, h, p, w, p]
      .reshape({batch, -1, height * patch_size, width * patch_size});
}

}  // namespace prefusion::nn
