#pragma once

#include "kernels/attention/hopper_tiles.h"
#include "kernels/attention/softmax_gradient.h"

// The gradients as backward_block.h has them, in two kernels that add nothing across blocks.
namespace prefusion::kernels::hopper {

// One launch: boxes of the tensors whose rows a block owns, and of those whose rows it walks over.
template <typename Element, typename Map>
struct HopperGradArgs {
  blockwise::AttentionGradArgs<Element> attention;
  Map own[2], walked[2];
};

// Products of own rows with a tile of a stage: by which the softmax is recomputed, and its gradient.
template <typename Shape, typename Element, typename Warp, typename Tiles>
PREFUSION_HOST_DEVICE void multiply_pairs(Warp& warp, const Tiles& tiles, int group, int stage,
                                          blockwise::Accumulator<Warp> (&scores)[Shape::kTileRows / 8],
                                          blockwise::Accumulator<Warp> (&grads)[Shape::kTileRows / 8]) {
  blockwise::clear(scores);
  blockwise::clear(grads);
  warp.begin_products(scores, grads);
  add_by_rows<Shape, Element>(warp, scores, tiles.own(0, group), tiles.tile(stage, 0));
  add_by_rows<Shape, Element>(warp, grads, tiles.own(1, group), tiles.tile(stage, 1));
  warp.finish_products(scores, grads);
}

// grad_query of kBlockRows queries: they and their grad_output are own, keys and values walked over.
template <typename Shape, typename Element, typename Warp>
class HopperQueryGradBlock {
  static constexpr int kRows = Shape::kTileRows;

 public:
  using Args = HopperGradArgs<Element, typename Warp::Map>;
  using Memory = BlockMemory<Shape, /*own_tiles=*/2, /*row_numbers=*/0>;

  PREFUSION_HOST_DEVICE HopperQueryGradBlock(Warp& warp, const Args& args, int batch, int head, int block)
      : warp_(warp),
        args_(args),
        batch_(batch),
        head_(head),
        first_query_(block * kBlockRows),
        tiles_(warp, batch, head, args.attention.forward.num_keys) {}

  PREFUSION_HOST_DEVICE void run() {
    tiles_.share_work([this] { fetch(); }, [this](int group) { multiply(group); });
  }

 private:
  PREFUSION_HOST_DEVICE void fetch() {
    tiles_.fetch_own(args_.own, first_query_);
    tiles_.fetch_tiles(args_.walked);
  }

  PREFUSION_HOST_DEVICE void multiply(int group) {
    const auto& attention = args_.attention;
    const int first_row = first_query_ + warp_.index() * blockwise::kWarpRows;
    blockwise::QueryNumbers<Warp> numbers[2];  // of a lane's two queries
    blockwise::load_numbers_of_rows(numbers, warp_, attention, batch_, head_, first_row);
    blockwise::Accumulator<Warp> sums[Shape::kPaddedSize / 8];
    blockwise::clear(sums);
    tiles_.use_tiles([&](int tile, int stage) {
      blockwise::Accumulator<Warp> scores[kRows / 8], grads[kRows / 8];
      multiply_pairs<Shape, Element>(warp_, tiles_, group, stage, scores, grads);
      if (tiles_.is_last(tile)) {
        blockwise::leave_out_missing_keys(warp_, scores, attention.forward.num_keys - tile * kRows);
      }
      blockwise::differentiate_rows(scores, grads, numbers, attention.forward.scale_log2);
      const auto weights = round_weights<Shape, Element>(grads);
      warp_.begin_products(sums);
      add_by_columns<Shape, Element>(warp_, sums, weights, tiles_.tile(stage, 0));
      warp_.finish_products(sums);
    });
    blockwise::multiply(sums, attention.forward.scale);
    blockwise::store_rows<Shape>(warp_, sums, attention.grad_query + attention.grad_query_layout.offset(batch_, head_),
                                 attention.grad_query_layout.row, first_row, attention.forward.num_queries);
  }

  Warp& warp_;
  const Args& args_;
  int batch_, head_, first_query_;
  TileWalk<Shape, Memory, Warp> tiles_;
};

// grad_key and grad_value of kBlockRows keys: everything transposed, keys and values are own, queries and grad_output
// walked over.
template <typename Shape, typename Element, typename Warp>
class HopperKeyGradBlock {
  static constexpr int kRows = Shape::kTileRows;
  // A lane of the warp that fetches brings the numbers of so many queries of a tile.
  static constexpr int kLaneQueries = (kRows + blockwise::kLanes - 1) / blockwise::kLanes;
  using Numbers = blockwise::QueryNumbers<Warp>[kLaneQueries];

 public:
  using Args = HopperGradArgs<Element, typename Warp::Map>;
  using Memory = BlockMemory<Shape, /*own_tiles=*/2, /*row_numbers=*/2>;

  PREFUSION_HOST_DEVICE HopperKeyGradBlock(Warp& warp, const Args& args, int batch, int head, int block)
      : warp_(warp),
        args_(args),
        batch_(batch),
        head_(head),
        first_key_(block * kBlockRows),
        tiles_(warp, batch, head, args.attention.forward.num_queries) {}

  PREFUSION_HOST_DEVICE void run() {
    tiles_.share_work([this] { fetch(); }, [this](int group) { multiply(group); });
  }

 private:
  PREFUSION_HOST_DEVICE void fetch() {
    Numbers numbers;
    tiles_.fetch_own(args_.own, first_key_);
    tiles_.fetch_tiles(
        args_.walked, [&](int first_query) { load(numbers, first_query); }, [&](int stage) { store(numbers, stage); });
  }

  PREFUSION_HOST_DEVICE void load(Numbers& numbers, int first_query) const {
    PREFUSION_UNROLL
    for (int i = 0; i < kLaneQueries; ++i) {
      const auto row = warp_.lane() + i * blockwise::kLanes;
      const auto exists = (row < kRows) & (row + first_query < args_.attention.forward.num_queries);
      numbers[i] = blockwise::load_numbers<Warp>(args_.attention, batch_, head_, row + first_query, exists);
    }
  }
  PREFUSION_HOST_DEVICE void store(const Numbers& numbers, int stage) {
    PREFUSION_UNROLL
    for (int i = 0; i < kLaneQueries; ++i) {
      const auto row = warp_.lane() + i * blockwise::kLanes;
      blockwise::store_numbers(warp_, Memory::numbers(stage), kRows, row, row < kRows, numbers[i]);
    }
  }

  PREFUSION_HOST_DEVICE void multiply(int group) {
    const auto& attention = args_.attention;
    blockwise::Accumulator<Warp> key_sums[Shape::kPaddedSize / 8], value_sums[Shape::kPaddedSize / 8];
    blockwise::clear(key_sums);
    blockwise::clear(value_sums);
    tiles_.use_tiles([&](int, int stage) {
      blockwise::Accumulator<Warp> scores[kRows / 8], grads[kRows / 8];
      multiply_pairs<Shape, Element>(warp_, tiles_, group, stage, scores, grads);
      blockwise::differentiate_columns(warp_, scores, grads, Memory::numbers(stage), attention.forward.scale_log2);
      const auto value_weights = round_weights<Shape, Element>(scores);
      const auto key_weights = round_weights<Shape, Element>(grads);
      warp_.begin_products(value_sums, key_sums);
      add_by_columns<Shape, Element>(warp_, value_sums, value_weights, tiles_.tile(stage, 1));
      add_by_columns<Shape, Element>(warp_, key_sums, key_weights, tiles_.tile(stage, 0));
      warp_.finish_products(value_sums, key_sums);
    });
    blockwise::multiply(key_sums, attention.forward.scale);
    const int first_row = first_key_ + warp_.index() * blockwise::kWarpRows;
    blockwise::store_rows<Shape>(warp_, key_sums, attention.grad_key + attention.grad_key_layout.offset(batch_, head_),
                                 attention.grad_key_layout.row, first_row, attention.forward.num_keys);
    blockwise::store_rows<Shape>(warp_, value_sums,
                                 attention.grad_value + attention.grad_value_layout.offset(batch_, head_),
                                 attention.grad_value_layout.row, first_row, attention.forward.num_keys);
  }

  Warp& warp_;
  const Args& args_;
  int batch_, head_, first_key_;
  TileWalk<Shape, Memory, Warp> tiles_;
};

}  // namespace prefusion::kernels::hopper
