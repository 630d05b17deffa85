#pragma once

#include "kernels/attention/softmax_gradient.h"

// The gradients, in two kernels: one owns queries and walks over keys, the other owns keys and walks over queries. That
// is seven products where one kernel would need five, but nothing is added across blocks, so results repeat to the bit.
namespace prefusion::kernels::blockwise {

// What both kernels have: two tiles of the block's own rows, and two of the rows it walks over, in stages.
template <typename Shape>
struct BackwardTiles {
  static constexpr int kOwnFirst = 0, kOwnSecond = Shape::kOwnElements;
  PREFUSION_HOST_DEVICE static constexpr int first(int tile) {
    return 2 * Shape::kOwnElements + (tile % kStages) * 2 * Shape::kTileElements;
  }
  PREFUSION_HOST_DEVICE static constexpr int second(int tile) { return first(tile) + Shape::kTileElements; }
  // Floats behind the elements: two numbers for each row of a tile.
  PREFUSION_HOST_DEVICE static constexpr int numbers(int tile) { return (tile % kStages) * 2 * Shape::kTileRows; }
};

// grad_query of kBlockRows queries.
template <typename Shape, typename Element, typename Warp>
class QueryGradBlock {
  static constexpr int kRows = Shape::kTileRows;
  using Tiles = BackwardTiles<Shape>;

 public:
  PREFUSION_HOST_DEVICE QueryGradBlock(Warp& warp, const AttentionGradArgs<Element>& args, int64_t batch, int64_t head,
                                       int block)
      : warp_(warp), args_(args), batch_(batch), head_(head), first_query_(block * kBlockRows) {}

  PREFUSION_HOST_DEVICE void run() {
    const auto& forward = args_.forward;
    const int num_tiles = static_cast<int>(divide_up(forward.num_keys, kRows));
    clear(sums_);
    copy_rows<Shape, kBlockRows>(warp_, Tiles::kOwnFirst, forward.query + forward.query_layout.offset(batch_, head_),
                                 forward.query_layout.row, first_query_, forward.num_queries);
    copy_rows<Shape, kBlockRows>(warp_, Tiles::kOwnSecond,
                                 args_.grad_output + args_.grad_output_layout.offset(batch_, head_),
                                 args_.grad_output_layout.row, first_query_, forward.num_queries);
    const int first_row = first_query_ + warp_.index() * kWarpRows;
    load_numbers_of_rows(numbers_, warp_, args_, batch_, head_, first_row);
    walk_tiles(
        warp_, num_tiles, [this](int tile) { copy_tile(tile); }, [this](int tile) { add_tile(tile); });
    multiply(sums_, forward.scale);
    store_rows<Shape>(warp_, sums_, args_.grad_query + args_.grad_query_layout.offset(batch_, head_),
                      args_.grad_query_layout.row, first_row, forward.num_queries);
  }

 private:
  PREFUSION_HOST_DEVICE void copy_tile(int tile) {
    const auto& forward = args_.forward;
    copy_rows<Shape, kRows>(warp_, Tiles::first(tile), forward.key + forward.key_layout.offset(batch_, head_),
                            forward.key_layout.row, tile * kRows, forward.num_keys);
    copy_rows<Shape, kRows>(warp_, Tiles::second(tile), forward.value + forward.value_layout.offset(batch_, head_),
                            forward.value_layout.row, tile * kRows, forward.num_keys);
  }

  PREFUSION_HOST_DEVICE void add_tile(int tile) {
    const auto& forward = args_.forward;
    const int first_row = warp_.index() * kWarpRows;
    Accumulator<Warp> weights[kRows / 8], grads[kRows / 8];
    multiply_by_rows<Shape, Element, kRows>(warp_, weights, Tiles::kOwnFirst, first_row, Tiles::first(tile));
    multiply_by_rows<Shape, Element, kRows>(warp_, grads, Tiles::kOwnSecond, first_row, Tiles::second(tile));
    const int num_keys = forward.num_keys - tile * kRows;
    if (num_keys < kRows) leave_out_missing_keys(warp_, weights, num_keys);
    differentiate_rows(weights, grads, numbers_, forward.scale_log2);
    multiply_by_columns<Shape, Element, kRows>(warp_, sums_, grads, Tiles::first(tile));
  }

  Warp& warp_;
  const AttentionGradArgs<Element>& args_;
  int64_t batch_, head_;
  int first_query_;
  Accumulator<Warp> sums_[Shape::kPaddedSize / 8];
  QueryNumbers<Warp> numbers_[2];  // of a lane's two queries
};

// grad_key and grad_value of kBlockRows keys: everything transposed, a row is a key.
template <typename Shape, typename Element, typename Warp>
class KeyGradBlock {
  static constexpr int kRows = Shape::kTileRows;
  using Tiles = BackwardTiles<Shape>;

 public:
  PREFUSION_HOST_DEVICE KeyGradBlock(Warp& warp, const AttentionGradArgs<Element>& args, int64_t batch, int64_t head,
                                     int block)
      : warp_(warp), args_(args), batch_(batch), head_(head), first_key_(block * kBlockRows) {}

  PREFUSION_HOST_DEVICE void run() {
    const auto& forward = args_.forward;
    const int num_tiles = static_cast<int>(divide_up(forward.num_queries, kRows));
    clear(key_sums_);
    clear(value_sums_);
    copy_rows<Shape, kBlockRows>(warp_, Tiles::kOwnFirst, forward.key + forward.key_layout.offset(batch_, head_),
                                 forward.key_layout.row, first_key_, forward.num_keys);
    copy_rows<Shape, kBlockRows>(warp_, Tiles::kOwnSecond, forward.value + forward.value_layout.offset(batch_, head_),
                                 forward.value_layout.row, first_key_, forward.num_keys);
    walk_tiles(
        warp_, num_tiles, [this](int tile) { copy_tile(tile); }, [this](int tile) { add_tile(tile); });
    multiply(key_sums_, forward.scale);
    const int first = first_key_ + warp_.index() * kWarpRows;
    store_rows<Shape>(warp_, key_sums_, args_.grad_key + args_.grad_key_layout.offset(batch_, head_),
                      args_.grad_key_layout.row, first, forward.num_keys);
    store_rows<Shape>(warp_, value_sums_, args_.grad_value + args_.grad_value_layout.offset(batch_, head_),
                      args_.grad_value_layout.row, first, forward.num_keys);
  }

 private:
  PREFUSION_HOST_DEVICE void copy_tile(int tile) {
    const auto& forward = args_.forward;
    const int first = tile * kRows;
    copy_rows<Shape, kRows>(warp_, Tiles::first(tile), forward.query + forward.query_layout.offset(batch_, head_),
                            forward.query_layout.row, first, forward.num_queries);
    copy_rows<Shape, kRows>(warp_, Tiles::second(tile),
                            args_.grad_output + args_.grad_output_layout.offset(batch_, head_),
                            args_.grad_output_layout.row, first, forward.num_queries);
    const auto row = warp_.thread();
    const auto is_of_tile = row < kRows;
    const auto exists = is_of_tile & (row + first < forward.num_queries);
    store_numbers(warp_, Tiles::numbers(tile), kRows, row, is_of_tile,
                  load_numbers<Warp>(args_, batch_, head_, row + first, exists));
  }

  PREFUSION_HOST_DEVICE void add_tile(int tile) {
    const auto& forward = args_.forward;
    const int first_row = warp_.index() * kWarpRows;
    Accumulator<Warp> weights[kRows / 8], grads[kRows / 8];
    multiply_by_rows<Shape, Element, kRows>(warp_, weights, Tiles::kOwnFirst, first_row, Tiles::first(tile));
    multiply_by_rows<Shape, Element, kRows>(warp_, grads, Tiles::kOwnSecond, first_row, Tiles::second(tile));
    differentiate_columns(warp_, weights, grads, Tiles::numbers(tile), forward.scale_log2);
    multiply_by_columns<Shape, Element, kRows>(warp_, value_sums_, weights, Tiles::second(tile));
    multiply_by_columns<Shape, Element, kRows>(warp_, key_sums_, grads, Tiles::first(tile));
  }

  Warp& warp_;
  const AttentionGradArgs<Element>& args_;
  int64_t batch_, head_;
  int first_key_;
  Accumulator<Warp> key_sums_[Shape::kPaddedSize / 8], value_sums_[Shape::kPaddedSize / 8];
};

}  // namespace prefusion::kernels::blockwise
