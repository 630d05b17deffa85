#include "vae/tiling.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace prefusion::vae {
namespace {

// `tile` with its first rows (dim 2) or columns (dim 3) faded in from the last ones of its neighbour.
at::Tensor fade(const at::Tensor& neighbour, const at::Tensor& tile, int64_t extent, int64_t dim) {
  extent = std::min({extent, neighbour.size(dim), tile.size(dim)});
  if (extent == 0) return tile;
  at::Tensor weight = at::arange(extent, tile.options()) / static_cast<double>(extent);
  if (dim == 2) weight = weight.unsqueeze(1);
  const at::Tensor old_part = neighbour.narrow(dim, neighbour.size(dim) - extent, extent);
  const at::Tensor new_part = tile.narrow(dim, 0, extent);
  return at::cat({old_part * (1 - weight) + new_part * weight, tile.narrow(dim, extent, tile.size(dim) - extent)}, dim);
}

}  // namespace

Tiling parse_tiling(const std::string& name, const std::string& flag) {
  if (name == "auto") return Tiling::kAuto;
  if (name == "on") return Tiling::kOn;
  check_usage(name == "off", flag, " ", name, ": expected auto, on or off");
  return Tiling::kOff;
}

at::Tensor map_tiles(const at::Tensor& input, const TileGrid& grid,
                     const std::function<at::Tensor(const at::Tensor&)>& function) {
  const int64_t step = std::max<int64_t>(1, grid.input_tile * 3 / 4);
  const int64_t extent = grid.output_tile / 4;
  const int64_t kept = grid.output_tile - extent;
  // The neighbour above is the one without its fade to the left, the neighbour to the left the one with its fade from
  // above: where four tiles meet, their weights are products of both fades, and sum to one.
  std::vector<at::Tensor> above, joined_rows;
  for (int64_t top = 0; top < input.size(2); top += step) {
    std::vector<at::Tensor> row, cropped;
    at::Tensor left_neighbour;
    for (int64_t left = 0; left < input.size(3); left += step) {
      row.push_back(function(input.slice(2, top, top + grid.input_tile).slice(3, left, left + grid.input_tile)));
      const at::Tensor tile = above.empty() ? row.back() : fade(above[row.size() - 1], row.back(), extent, /*dim=*/2);
      const at::Tensor joined = left_neighbour.defined() ? fade(left_neighbour, tile, extent, /*dim=*/3) : tile;
      cropped.push_back(joined.slice(2, 0, kept).slice(3, 0, kept));
      left_neighbour = tile;
    }
    joined_rows.push_back(at::cat(cropped, /*dim=*/3));
    above = std::move(row);
  }
  return at::cat(joined_rows, /*dim=*/2);
}

}  // namespace prefusion::vae
