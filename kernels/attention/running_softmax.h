#pragma once

#include "kernels/attention/fragments.h"

namespace prefusion::kernels::blockwise {

// Of the 16 queries of a warp: softmax(scale scores) times values, with scores that come tile by tile
// ("FlashAttention-2", arXiv 2307.08691). With one tile, as for the 77 tokens of a prompt, nothing is ever rescaled.
template <typename Shape, typename Warp>
class RunningSoftmax {
  static constexpr int kRows = Shape::kTileRows;
  using Float = typename Warp::Float;

 public:
  using Scores = Accumulator<Warp>[kRows / 8];
  using Sums = Accumulator<Warp>[Shape::kPaddedSize / 8];

  PREFUSION_HOST_DEVICE RunningSoftmax() {
    clear(sums_);
    PREFUSION_UNROLL
    for (int half = 0; half < 2; ++half) {
      largest_[half] = Warp::constant(-Warp::kInfinity);
      total_[half] = Warp::constant(0.0f);
    }
  }

  // The scores of tile number `tile` become the weights of its values, which are to be added to sums(). Of the last
  // tile `count` rows are keys.
  PREFUSION_HOST_DEVICE void weigh(const Warp& warp, Scores& scores, float scale_log2, int tile, bool is_last,
                                   int count) {
    if (is_last) leave_out_missing_keys(warp, scores, count);
    const bool is_first = tile == 0;
    PREFUSION_UNROLL
    for (int half = 0; half < 2; ++half) exponentiate(warp, scores, scale_log2, half, is_first);
  }

  PREFUSION_HOST_DEVICE Sums& sums() { return sums_; }

  // Sums become means, and are written with the logarithms of the totals as rows first_row .. +15 of a head.
  template <typename Element>
  PREFUSION_HOST_DEVICE void store(Warp& warp, Element* output, int64_t row_stride, float* log_sum, int first_row,
                                   int count, float scale_log2) {
    PREFUSION_UNROLL
    for (int half = 0; half < 2; ++half) {
      const Float total = warp.sum_of_row(total_[half]);
      PREFUSION_UNROLL
      for (auto& block : sums_) {
        PREFUSION_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; ++i) block.values[i] = block.values[i] / total;
      }
      const auto row = (warp.lane() >> 2) + first_row + 8 * half;
      // One lane of the four that share a row.
      warp.store_float(log_sum, row, largest_[half] * scale_log2 + Warp::log2(total),
                       (row < count) & ((warp.lane() & 3) < 1));
    }
    store_rows<Shape>(warp, sums_, output, row_stride, first_row, count);
  }

 private:
  // The rows of one half: scores become exponentials relative to the largest so far, and what was summed before is
  // brought to the same scale. Every row has a key in the first tile, so its largest score is a number from there on.
  PREFUSION_HOST_DEVICE void exponentiate(const Warp& warp, Scores& scores, float scale_log2, int half, bool is_first) {
    Float largest = largest_[half];
    PREFUSION_UNROLL
    for (auto& block : scores) {
      largest = Warp::larger(largest, Warp::larger(block.values[2 * half], block.values[2 * half + 1]));
    }
    largest = warp.max_of_row(largest);
    const Float shift = largest * scale_log2;
    Float sum = Warp::constant(0.0f);
    PREFUSION_UNROLL
    for (auto& block : scores) {
      PREFUSION_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        block.values[i] = Warp::exp2(block.values[i] * scale_log2 - shift);
        sum = sum + block.values[i];
      }
    }
    if (!is_first) {
      const Float factor = Warp::exp2(largest_[half] * scale_log2 - shift);
      total_[half] = total_[half] * factor;
      PREFUSION_UNROLL
      for (auto& block : sums_) {
        PREFUSION_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; ++i) block.values[i] = block.values[i] * factor;
      }
    }
    total_[half] = total_[half] + sum;
    largest_[half] = largest;
  }

  Sums sums_;         // of 16 queries
  Float largest_[2];  // score so far of the rows of each half
  Float total_[2];    // of their exponentials, of this lane's columns
};

}  // namespace prefusion::kernels::blockwise
