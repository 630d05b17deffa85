#pragma once

#include "kernels/attention/fragments.h"

// The gradients, in two kernels: one owns queries and walks over keys, the other owns keys and walks over queries. That
// is seven products where one kernel would need five, but nothing is added across blocks, so results repeat to the bit.
// Both recompute the softmax p from the logarithm of its sum; with d = p (grad_output value^T - row_product):
//   grad_query = scale d key, grad_key = scale d^T query, grad_value = p^T grad_output
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
  using Float = typename Warp::Float;
  using Tiles = BackwardTiles<Shape>;

 public:
  PREFUSION_HOST_DEVICE QueryGradBlock(Warp& warp, const AttentionGradArgs<Element>& args, int64_t batch, int64_t head,
                                       int block)
      : warp_(warp), args_(args), batch_(batch), head_(head), first_query_(block * kBlockRows) {}

  PREFUSION_HOST_DEVICE void run() {
    const auto& forward = args_.forward;
    const int num_tiles = static_cast<int>(divide_up(forward.num_keys, kRows));
    PREFUSION_UNROLL
    for (auto& sum : sums_) clear(sum);
    copy_rows<Shape, kBlockRows>(warp_, Tiles::kOwnFirst, forward.query + forward.query_layout.offset(batch_, head_),
                                 forward.query_layout.row, first_query_, forward.num_queries);
    copy_rows<Shape, kBlockRows>(warp_, Tiles::kOwnSecond,
                                 args_.grad_output + args_.grad_output_layout.offset(batch_, head_),
                                 args_.grad_output_layout.row, first_query_, forward.num_queries);
    load_rows();
    walk_tiles(
        warp_, num_tiles, [this](int tile) { copy_tile(tile); }, [this](int tile) { add_tile(tile); });
    PREFUSION_UNROLL
    for (auto& sum : sums_) {
      PREFUSION_UNROLL
      for (auto& value : sum.values) value = value * forward.scale;
    }
    store_rows<Shape>(warp_, sums_, args_.grad_query + args_.grad_query_layout.offset(batch_, head_),
                      args_.grad_query_layout.row, first_query_ + warp_.index() * kWarpRows, forward.num_queries);
  }

 private:
  PREFUSION_HOST_DEVICE void copy_tile(int tile) {
    const auto& forward = args_.forward;
    copy_rows<Shape, kRows>(warp_, Tiles::first(tile), forward.key + forward.key_layout.offset(batch_, head_),
                            forward.key_layout.row, tile * kRows, forward.num_keys);
    copy_rows<Shape, kRows>(warp_, Tiles::second(tile), forward.value + forward.value_layout.offset(batch_, head_),
                            forward.value_layout.row, tile * kRows, forward.num_keys);
  }

  // The two numbers of each of this lane's two queries.
  PREFUSION_HOST_DEVICE void load_rows() {
    const auto& forward = args_.forward;
    const int64_t rows = (batch_ * forward.num_heads + head_) * forward.num_queries;
    PREFUSION_UNROLL
    for (int half = 0; half < 2; ++half) {
      const auto row = (warp_.lane() >> 2) + first_query_ + warp_.index() * kWarpRows + 8 * half;
      const auto exists = row < forward.num_queries;
      log_sum_[half] = warp_.load_float(forward.log_sum + rows, row, exists, Warp::kInfinity);
      row_product_[half] = warp_.load_float(args_.row_product + rows, row, exists, 0.0f);
    }
  }

  PREFUSION_HOST_DEVICE void add_tile(int tile) {
    const auto& forward = args_.forward;
    const int first_row = warp_.index() * kWarpRows;
    Accumulator<Warp> weights[kRows / 8], grads[kRows / 8];
    multiply_by_rows<Shape, Element, kRows>(warp_, weights, Tiles::kOwnFirst, first_row, Tiles::first(tile));
    multiply_by_rows<Shape, Element, kRows>(warp_, grads, Tiles::kOwnSecond, first_row, Tiles::second(tile));
    PREFUSION_UNROLL
    for (int block = 0; block < kRows / 8; ++block) {
      const auto column = (warp_.lane() & 3) * 2 + 8 * block + tile * kRows;
      PREFUSION_UNROLL
      for (int i = 0; i < 4; ++i) {
        const Float p = Warp::exp2(weights[block].values[i] * forward.scale_log2 - log_sum_[i / 2]);
        const Float d = p * (grads[block].values[i] - row_product_[i / 2]);
        // A missing key's zero row would still make 0 * infinity where all scores are very small.
        weights[block].values[i] = Warp::select(column + (i & 1) < forward.num_keys, d, Warp::constant(0.0f));
      }
    }
    multiply_by_columns<Shape, Element, kRows>(warp_, sums_, weights, Tiles::first(tile));
  }

  Warp& warp_;
  const AttentionGradArgs<Element>& args_;
  int64_t batch_, head_;
  int first_query_;
  Accumulator<Warp> sums_[Shape::kPaddedSize / 8];
  Float log_sum_[2], row_product_[2];
};

// grad_key and grad_value of kBlockRows keys: everything transposed, a row is a key.
template <typename Shape, typename Element, typename Warp>
class KeyGradBlock {
  static constexpr int kRows = Shape::kTileRows;
  using Float = typename Warp::Float;
  using Tiles = BackwardTiles<Shape>;

 public:
  PREFUSION_HOST_DEVICE KeyGradBlock(Warp& warp, const AttentionGradArgs<Element>& args, int64_t batch, int64_t head,
                                     int block)
      : warp_(warp), args_(args), batch_(batch), head_(head), first_key_(block * kBlockRows) {}

  PREFUSION_HOST_DEVICE void run() {
    const auto& forward = args_.forward;
    const int num_tiles = static_cast<int>(divide_up(forward.num_queries, kRows));
    PREFUSION_UNROLL
    for (auto& sum : key_sums_) clear(sum);
    PREFUSION_UNROLL
    for (auto& sum : value_sums_) clear(sum);
    copy_rows<Shape, kBlockRows>(warp_, Tiles::kOwnFirst, forward.key + forward.key_layout.offset(batch_, head_),
                                 forward.key_layout.row, first_key_, forward.num_keys);
    copy_rows<Shape, kBlockRows>(warp_, Tiles::kOwnSecond, forward.value + forward.value_layout.offset(batch_, head_),
                                 forward.value_layout.row, first_key_, forward.num_keys);
    walk_tiles(
        warp_, num_tiles, [this](int tile) { copy_tile(tile); }, [this](int tile) { add_tile(tile); });
    PREFUSION_UNROLL
    for (auto& sum : key_sums_) {
      PREFUSION_UNROLL
      for (auto& value : sum.values) value = value * forward.scale;
    }
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
    // A query that does not exist has an infinite sum: its weights are zero.
    const int64_t rows = (batch_ * forward.num_heads + head_) * forward.num_queries;
    const auto row = warp_.thread();
    const auto is_of_tile = row < kRows;
    const auto exists = is_of_tile & (row + first < forward.num_queries);
    warp_.store_shared(Tiles::numbers(tile), row,
                       warp_.load_float(forward.log_sum + rows, row + first, exists, Warp::kInfinity), is_of_tile);
    warp_.store_shared(Tiles::numbers(tile) + kRows, row,
                       warp_.load_float(args_.row_product + rows, row + first, exists, 0.0f), is_of_tile);
  }

  PREFUSION_HOST_DEVICE void add_tile(int tile) {
    const auto& forward = args_.forward;
    const int first_row = warp_.index() * kWarpRows;
    Accumulator<Warp> weights[kRows / 8], grads[kRows / 8];
    multiply_by_rows<Shape, Element, kRows>(warp_, weights, Tiles::kOwnFirst, first_row, Tiles::first(tile));
    multiply_by_rows<Shape, Element, kRows>(warp_, grads, Tiles::kOwnSecond, first_row, Tiles::second(tile));
    PREFUSION_UNROLL
    for (int block = 0; block < kRows / 8; ++block) {
      PREFUSION_UNROLL
      for (int i = 0; i < 2; ++i) {  // a lane's two queries of the block
        const auto column = (warp_.lane() & 3) * 2 + 8 * block + i;
        const Float log_sum = warp_.load_shared(Tiles::numbers(tile), column);
        const Float row_product = warp_.load_shared(Tiles::numbers(tile) + kRows, column);
        PREFUSION_UNROLL
        for (int j = i; j < 4; j += 2) {  // of each of its two keys
          const Float p = Warp::exp2(weights[block].values[j] * forward.scale_log2 - log_sum);
          weights[block].values[j] = p;
          grads[block].values[j] = p * (grads[block].values[j] - row_product);
        }
      }
    }
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
