#pragma once

#include "kernels/attention/fragments.h"
#include "kernels/attention/hopper_shape.h"

// What all blocks for sm_90a do: one warp fetches tiles in stages, two groups of four warps multiply them from shared
// memory, each by 64 of the block's rows.
namespace prefusion::kernels::hopper {

// A block's way through its tiles, as one of its warps sees it.
template <typename Shape, typename Memory, typename Warp>
class TileWalk {
  static constexpr int kRows = Shape::kTileRows;
  using Map = typename Warp::Map;

 public:
  // `num_rows` are walked over.
  PREFUSION_HOST_DEVICE TileWalk(Warp& warp, int batch, int head, int num_rows)
      : warp_(warp), batch_(batch), head_(head), num_tiles_(static_cast<int>(blockwise::divide_up(num_rows, kRows))) {}

  // `fetch()` in one warp, `multiply(group)` in those of the groups that multiply.
  template <typename Fetch, typename Multiply>
  PREFUSION_HOST_DEVICE void share_work(const Fetch& fetch, const Multiply& multiply) {
    const int group = warp_.index() / kGroupWarps;
    if (group == kConsumers) {
      warp_.give_registers();
      if (warp_.index() % kGroupWarps == 0) fetch();
    } else {
      warp_.take_registers();
      multiply(group);
    }
  }

  PREFUSION_HOST_DEVICE void fetch_own(const Map (&maps)[Memory::kOwnTiles], int first_row) {
    warp_.expect(kOwnArrived, Memory::kOwnTiles * Shape::kOwnBytes);
    PREFUSION_UNROLL
    for (int i = 0; i < Memory::kOwnTiles; ++i) {
      fetch_panels(maps[i], Shape::kOwnPanelBytes, first_row, Memory::own(i), kOwnArrived);
    }
  }

  // load(first row) reads a tile's numbers while its stage may still be in use, store(stage) writes them there.
  template <typename Load, typename Store>
  PREFUSION_HOST_DEVICE void fetch_tiles(const Map (&maps)[2], const Load& load, const Store& store) {
    for (int tile = 0; tile < num_tiles_; ++tile) {
      const int stage = tile % kStages;
      load(tile * kRows);
      warp_.wait(freed(stage), round_of(tile) ^ 1);  // nobody has used it in the first round
      store(stage);
      warp_.expect(arrived(stage), 2 * Shape::kTileBytes);
      PREFUSION_UNROLL
      for (int i = 0; i < 2; ++i) {
        fetch_panels(maps[i], Shape::kTilePanelBytes, tile * kRows, Memory::tile(stage, i), arrived(stage));
      }
    }
  }
  PREFUSION_HOST_DEVICE void fetch_tiles(const Map (&maps)[2]) {
    fetch_tiles(
        maps, [](int) {}, [](int) {});
  }

  // use(tile, stage) multiplies own rows and each tile.
  template <typename Use>
  PREFUSION_HOST_DEVICE void use_tiles(const Use& use) {
    warp_.wait(kOwnArrived, 0);
    for (int tile = 0; tile < num_tiles_; ++tile) {
      const int stage = tile % kStages;
      warp_.wait(arrived(stage), round_of(tile));
      use(tile, stage);
      warp_.arrive(freed(stage));
    }
  }

  PREFUSION_HOST_DEVICE bool is_last(int tile) const { return tile + 1 == num_tiles_; }

  // Where the rows of a group begin in an own tile, and a tile of a stage.
  PREFUSION_HOST_DEVICE uint32_t own(int which, int group) const {
    return warp_.address(Memory::own(which) + group * kGroupRows * kPanelRowBytes);
  }
  PREFUSION_HOST_DEVICE uint32_t tile(int stage, int which) const { return warp_.address(Memory::tile(stage, which)); }

 private:
  // Phases of a barrier are told apart by their parity: that of the `round`th time a stage is used.
  PREFUSION_HOST_DEVICE static constexpr int round_of(int tile) { return tile / kStages & 1; }

  PREFUSION_HOST_DEVICE void fetch_panels(const Map& map, int panel_bytes, int first_row, int into, int barrier) {
    PREFUSION_UNROLL
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      warp_.fetch(map, {panel * kPanelElements, first_row, head_, batch_}, into + panel * panel_bytes, barrier);
    }
  }

  Warp& warp_;
  int batch_, head_, num_tiles_;
};

// Between begin_products and finish_products: sums [64, rows] += own rows times the transposed tile.
template <typename Shape, typename Element, typename Warp>
PREFUSION_HOST_DEVICE void add_by_rows(Warp& warp, blockwise::Accumulator<Warp> (&sums)[Shape::kTileRows / 8],
                                       uint32_t own, uint32_t tile) {
  PREFUSION_UNROLL
  for (int step = 0; step < Shape::kDepthSteps; ++step) {
    warp.template add_product<Element>(sums, elements_as_depth(own, Shape::kOwnPanelBytes, step),
                                       elements_as_depth(tile, Shape::kTilePanelBytes, step));
  }
}

// Weights [64, rows] of a tile's rows, rounded: operands that products read while they run.
template <typename Shape, typename Warp>
struct RoundedWeights {
  static constexpr int kDepthSteps = Shape::kTileRows / 16;
  blockwise::LeftFragment<Warp> left[kDepthSteps];
};
template <typename Shape, typename Element, typename Warp>
PREFUSION_HOST_DEVICE RoundedWeights<Shape, Warp> round_weights(
    const blockwise::Accumulator<Warp> (&weights)[Shape::kTileRows / 8]) {
  RoundedWeights<Shape, Warp> rounded;
  PREFUSION_UNROLL
  for (int step = 0; step < rounded.kDepthSteps; ++step) {
    rounded.left[step] = blockwise::round_to_left<Element>(weights[2 * step], weights[2 * step + 1]);
  }
  return rounded;
}

// Between begin_products and finish_products: sums [64, padded head] += weights times the tile.
template <typename Shape, typename Element, typename Warp>
PREFUSION_HOST_DEVICE void add_by_columns(Warp& warp, blockwise::Accumulator<Warp> (&sums)[Shape::kPaddedSize / 8],
                                          const RoundedWeights<Shape, Warp>& weights, uint32_t tile) {
  PREFUSION_UNROLL
  for (int step = 0; step < weights.kDepthSteps; ++step) {
    warp.template add_product<Element>(sums, weights.left[step], rows_as_depth(tile, Shape::kTilePanelBytes, step));
  }
}

}  // namespace prefusion::kernels::hopper
