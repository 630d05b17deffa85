#pragma once

#include "kernels/attention/fragments.h"

namespace prefusion::kernels::blockwise {

// softmax(scale query key^T) value of kBlockRows queries of one head, tile by tile of its keys ("FlashAttention-2",
// arXiv 2307.08691). With one tile, as for the 77 tokens of a prompt, nothing is ever rescaled. Warps that own no query
// keep company: copies and barriers are of the whole block.
template <typename Shape, typename Element, typename Warp>
class ForwardBlock {
  static constexpr int kRows = Shape::kTileRows;
  using Float = typename Warp::Float;

 public:
  PREFUSION_HOST_DEVICE ForwardBlock(Warp& warp, const AttentionArgs<Element>& args, int64_t batch, int64_t head,
                                     int block)
      : warp_(warp),
        args_(args),
        key_(args.key + args.key_layout.offset(batch, head)),
        value_(args.value + args.value_layout.offset(batch, head)),
        query_(args.query + args.query_layout.offset(batch, head)),
        output_(args.output + args.output_layout.offset(batch, head)),
        log_sum_(args.log_sum + (batch * args.num_heads + head) * args.num_queries),
        first_query_(block * kBlockRows) {}

  PREFUSION_HOST_DEVICE void run() {
    start();
    const int num_tiles = static_cast<int>(divide_up(args_.num_keys, kRows));
    copy_rows<Shape, kBlockRows>(warp_, kQueries, query_, args_.query_layout.row, first_query_, args_.num_queries);
    walk_tiles(
        warp_, num_tiles, [this](int tile) { copy_tile(tile); },
        [this, num_tiles](int tile) { add_tile(tile, num_tiles); });
    finish();
  }

 private:
  static constexpr int kQueries = 0;
  PREFUSION_HOST_DEVICE static constexpr int keys_of(int tile) {
    return Shape::kOwnElements + (tile % kStages) * 2 * Shape::kTileElements;
  }
  PREFUSION_HOST_DEVICE static constexpr int values_of(int tile) { return keys_of(tile) + Shape::kTileElements; }

  PREFUSION_HOST_DEVICE void start() {
    PREFUSION_UNROLL
    for (auto& sum : output_sums_) clear(sum);
    PREFUSION_UNROLL
    for (int half = 0; half < 2; ++half) {
      largest_[half] = Warp::constant(-Warp::kInfinity);
      total_[half] = Warp::constant(0.0f);
    }
  }

  PREFUSION_HOST_DEVICE void copy_tile(int tile) {
    const int first = tile * kRows;
    copy_rows<Shape, kRows>(warp_, keys_of(tile), key_, args_.key_layout.row, first, args_.num_keys);
    copy_rows<Shape, kRows>(warp_, values_of(tile), value_, args_.value_layout.row, first, args_.num_keys);
  }

  PREFUSION_HOST_DEVICE void add_tile(int tile, int num_tiles) {
    Accumulator<Warp> scores[kRows / 8];
    multiply_by_rows<Shape, Element, kRows>(warp_, scores, kQueries, warp_.index() * kWarpRows, keys_of(tile));
    if (tile + 1 == num_tiles) leave_out_missing_keys(scores, args_.num_keys - tile * kRows);
    const bool is_first = tile == 0;
    PREFUSION_UNROLL
    for (int half = 0; half < 2; ++half) exponentiate(scores, half, is_first);
    multiply_by_columns<Shape, Element, kRows>(warp_, output_sums_, scores, values_of(tile));
  }

  PREFUSION_HOST_DEVICE void leave_out_missing_keys(Accumulator<Warp> (&scores)[kRows / 8], int count) {
    PREFUSION_UNROLL
    for (int block = 0; block < kRows / 8; ++block) {
      const auto column = (warp_.lane() & 3) * 2 + 8 * block;
      PREFUSION_UNROLL
      for (int i = 0; i < 4; ++i) {
        Float& score = scores[block].values[i];
        score = Warp::select(column + (i & 1) < count, score, Warp::constant(-Warp::kInfinity));
      }
    }
  }

  // The rows of one half: scores become exponentials relative to the largest so far, and what was summed before is
  // brought to the same scale. Every row has a key in the first tile, so its largest score is a number from there on.
  PREFUSION_HOST_DEVICE void exponentiate(Accumulator<Warp> (&scores)[kRows / 8], int half, bool is_first) {
    Float largest = largest_[half];
    PREFUSION_UNROLL
    for (auto& block : scores) {
      largest = Warp::larger(largest, Warp::larger(block.values[2 * half], block.values[2 * half + 1]));
    }
    largest = warp_.max_of_row(largest);
    const Float shift = largest * args_.scale_log2;
    Float sum = Warp::constant(0.0f);
    PREFUSION_UNROLL
    for (auto& block : scores) {
      PREFUSION_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        block.values[i] = Warp::exp2(block.values[i] * args_.scale_log2 - shift);
        sum = sum + block.values[i];
      }
    }
    if (!is_first) {
      const Float factor = Warp::exp2(largest_[half] * args_.scale_log2 - shift);
      total_[half] = total_[half] * factor;
      PREFUSION_UNROLL
      for (auto& block : output_sums_) {
        PREFUSION_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; ++i) block.values[i] = block.values[i] * factor;
      }
    }
    total_[half] = total_[half] + sum;
    largest_[half] = largest;
  }

  PREFUSION_HOST_DEVICE void finish() {
    const int first = first_query_ + warp_.index() * kWarpRows;
    PREFUSION_UNROLL
    for (int half = 0; half < 2; ++half) {
      const Float total = warp_.sum_of_row(total_[half]);
      PREFUSION_UNROLL
      for (auto& block : output_sums_) {
        PREFUSION_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; ++i) block.values[i] = block.values[i] / total;
      }
      const auto row = (warp_.lane() >> 2) + first + 8 * half;
      // One lane of the four that share a row.
      warp_.store_float(log_sum_, row, largest_[half] * args_.scale_log2 + Warp::log2(total),
                        (row < args_.num_queries) & ((warp_.lane() & 3) < 1));
    }
    store_rows<Shape>(warp_, output_sums_, output_, args_.output_layout.row, first, args_.num_queries);
  }

  Warp& warp_;
  const AttentionArgs<Element>& args_;
  const Element* key_;
  const Element* value_;
  const Element* query_;
  Element* output_;
  float* log_sum_;
  int first_query_;
  Accumulator<Warp> output_sums_[Shape::kPaddedSize / 8];  // 16 queries of the warp
  Float largest_[2];                                       // score so far of the rows of each half
  Float total_[2];                                         // of their exponentials, of this lane's columns
};

}  // namespace prefusion::kernels::blockwise
