#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace prefusion::vae {

// When the autoencoder works on overlapping tiles instead of the whole picture, which bounds the memory it takes.
enum class Tiling {
  kOff,
  kAuto,  // pictures of more than 2048 x 2048 pixels
  kOn,    // pictures larger than one tile
};

// A grid of square tiles that overlap by a quarter and are faded into each other over that quarter.
struct TileGrid {
  int64_t input_tile;   // side of a tile of the input
  int64_t output_tile;  // side of what it becomes
};

// Applies `function` to each tile of input [B, C, H, W] and joins the results, with linear fades at the seams: first
// from the tile above, then from the tile to the left.
at::Tensor map_tiles(const at::Tensor& input, const TileGrid& grid,
                     const std::function<at::Tensor(const at::Tensor&)>& function);

}  // namespace prefusion::vae
