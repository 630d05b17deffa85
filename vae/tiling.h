#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

namespace prefusion::vae {

// When the autoencoder works on overlapping tiles instead of the whole picture, which bounds the memory it takes.
enum class Tiling {
  kOff,
  kAuto,  // pictures of 2048 x 2048 pixels and more
  kOn,    // pictures larger than one tile
};

// A grid of square tiles that overlap by a quarter and are faded into each other over that quarter.
struct TileGrid {
  int64_t input_tile;   // side of a tile of the input
  int64_t output_tile;  // side of what it becomes
};

// "auto", "on" or "off"; usage error, naming `flag`, for others.
Tiling parse_tiling(const std::string& name, const std::string& flag);

// Applies `function` to each tile of input [B, C, H, W] and joins the results, with linear fades at the seams. Two
// tiles are joined as diffusers joins them; where four meet, their weights are products of the fades of both sides,
// while diffusers fades one of them twice, which leaves an edge.
at::Tensor map_tiles(const at::Tensor& input, const TileGrid& grid,
                     const std::function<at::Tensor(const at::Tensor&)>& function);

}  // namespace prefusion::vae
