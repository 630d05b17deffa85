#pragma once

#include "kernels/attention/block_shape.h"

// Matrix fragments of a warp, and the moves between shared memory and them. `Warp` is either a warp of the GPU
// (cuda_warp.h), where a Float is the number of one lane, or its emulation (tests/kernels/emulated_warp.h), where it is
// the 32 numbers of all lanes. Both have the same operations, so what is tested there runs here.
//
// Layouts are those of the instruction mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"): with row = lane / 4
// and pair = 2 (lane % 4), accumulator numbers 0, 1 of a lane are (row, pair), (row, pair + 1), numbers 2, 3 the same
// eight rows further down.
namespace prefusion::kernels::blockwise {

// Left operand of a product: 16 rows, 16 deep.
template <typename Warp>
struct LeftFragment {
  typename Warp::Word words[4];
};

// Right operands of two neighbouring products: 16 deep, 2 x 8 columns.
template <typename Warp>
struct RightFragment {
  typename Warp::Word words[4];  // depth 0-7 and 8-15 of the first eight columns, then of the second
};

// Accumulator: 16 rows, 8 columns.
template <typename Warp>
struct Accumulator {
  typename Warp::Float values[4];
};

template <typename Warp>
PREFUSION_HOST_DEVICE void clear(Accumulator<Warp>& accumulator) {
  PREFUSION_UNROLL
  for (int i = 0; i < 4; ++i) accumulator.values[i] = Warp::constant(0.0f);
}
template <typename Warp, int count>
PREFUSION_HOST_DEVICE void clear(Accumulator<Warp> (&accumulators)[count]) {
  PREFUSION_UNROLL
  for (int i = 0; i < count; ++i) clear(accumulators[i]);
}

template <typename Warp, int count>
PREFUSION_HOST_DEVICE void multiply(Accumulator<Warp> (&accumulators)[count], float factor) {
  PREFUSION_UNROLL
  for (auto& accumulator : accumulators) {
    PREFUSION_UNROLL
    for (auto& value : accumulator.values) value = value * factor;
  }
}

// Scores of a tile of which `num_keys` rows are keys: the others get no weight.
template <typename Warp, int count>
PREFUSION_HOST_DEVICE void leave_out_missing_keys(const Warp& warp, Accumulator<Warp> (&scores)[count], int num_keys) {
  PREFUSION_UNROLL
  for (int block = 0; block < count; ++block) {
    const auto column = (warp.lane() & 3) * 2 + 8 * block;
    PREFUSION_UNROLL
    for (int i = 0; i < 4; ++i) {
      auto& score = scores[block].values[i];
      score = Warp::select(column + (i & 1) < num_keys, score, Warp::constant(-Warp::kInfinity));
    }
  }
}

// Rows first_row .. +15, elements 16 step .. +15 of a tile, as left operand.
template <typename Shape, typename Warp>
PREFUSION_HOST_DEVICE LeftFragment<Warp> load_left(Warp& warp, int tile, int first_row, int step) {
  const auto lane = warp.lane();
  const auto row = (lane & 15) + first_row;
  const auto column = (lane >> 4) * 8 + 16 * step;
  LeftFragment<Warp> fragment;
  warp.load_matrices(fragment.words, row * Shape::kPitch + column + tile);
  return fragment;
}

// The same rows as columns of a right operand, elements as its depth: for products with a transposed tile.
template <typename Shape, typename Warp>
PREFUSION_HOST_DEVICE RightFragment<Warp> load_right_by_rows(Warp& warp, int tile, int first_row, int step) {
  const auto lane = warp.lane();
  const auto row = (lane & 7) + (lane >> 4) * 8 + first_row;
  const auto column = ((lane >> 3) & 1) * 8 + 16 * step;
  RightFragment<Warp> fragment;
  warp.load_matrices(fragment.words, row * Shape::kPitch + column + tile);
  return fragment;
}

// Rows first_row .. +15 as depth, elements 16 step .. +15 as columns of a right operand.
template <typename Shape, typename Warp>
PREFUSION_HOST_DEVICE RightFragment<Warp> load_right_by_columns(Warp& warp, int tile, int first_row, int step) {
  const auto lane = warp.lane();
  const auto row = (lane & 15) + first_row;
  const auto column = (lane >> 4) * 8 + 16 * step;
  RightFragment<Warp> fragment;
  warp.load_matrices_transposed(fragment.words, row * Shape::kPitch + column + tile);
  return fragment;
}

// Two accumulators side by side, rounded to 16 bits, as the left operand of the next product.
template <typename Element, typename Warp>
PREFUSION_HOST_DEVICE LeftFragment<Warp> round_to_left(const Accumulator<Warp>& left, const Accumulator<Warp>& right) {
  LeftFragment<Warp> fragment;
  fragment.words[0] = Warp::template pack<Element>(left.values[0], left.values[1]);
  fragment.words[1] = Warp::template pack<Element>(left.values[2], left.values[3]);
  fragment.words[2] = Warp::template pack<Element>(right.values[0], right.values[1]);
  fragment.words[3] = Warp::template pack<Element>(right.values[2], right.values[3]);
  return fragment;
}

// Adds left * right to two neighbouring accumulators.
template <typename Element, typename Warp>
PREFUSION_HOST_DEVICE void multiply_add(Accumulator<Warp>* accumulators, const LeftFragment<Warp>& left,
                                        const RightFragment<Warp>& right) {
  Warp::template multiply_add<Element>(accumulators[0].values, left.words, right.words[0], right.words[1]);
  Warp::template multiply_add<Element>(accumulators[1].values, left.words, right.words[2], right.words[3]);
}

// sums [16, rows] = own rows first_row .. +15 times the transposed tile; `rows` of it.
template <typename Shape, typename Element, int rows, typename Warp>
PREFUSION_HOST_DEVICE void multiply_by_rows(Warp& warp, Accumulator<Warp> (&sums)[rows / 8], int own, int first_row,
                                            int tile) {
  clear(sums);
  PREFUSION_UNROLL
  for (int step = 0; step < Shape::kDepthSteps; ++step) {
    const auto left = load_left<Shape>(warp, own, first_row, step);
    PREFUSION_UNROLL
    for (int block = 0; block < rows / 16; ++block) {
      multiply_add<Element>(&sums[2 * block], left, load_right_by_rows<Shape>(warp, tile, 16 * block, step));
    }
  }
}

// sums [16, padded head] += weights [16, rows], rounded, times the tile.
template <typename Shape, typename Element, int rows, typename Warp>
PREFUSION_HOST_DEVICE void multiply_by_columns(Warp& warp, Accumulator<Warp> (&sums)[Shape::kPaddedSize / 8],
                                               const Accumulator<Warp> (&weights)[rows / 8], int tile) {
  PREFUSION_UNROLL
  for (int block = 0; block < rows / 16; ++block) {
    const auto left = round_to_left<Element>(weights[2 * block], weights[2 * block + 1]);
    PREFUSION_UNROLL
    for (int step = 0; step < Shape::kDepthSteps; ++step) {
      multiply_add<Element>(&sums[2 * step], left, load_right_by_columns<Shape>(warp, tile, 16 * block, step));
    }
  }
}

// Starts copying rows first_row .. +num_rows-1 of a head into a tile; rows from `count` on and elements beyond the head
// become zero. All warps of the block share the work.
template <typename Shape, int num_rows, typename Element, typename Warp>
PREFUSION_HOST_DEVICE void copy_rows(Warp& warp, int tile, const Element* head, int64_t row_stride, int first_row,
                                     int count) {
  constexpr int kChunksOfRow = Shape::kPaddedSize / kChunk;
  constexpr int kChunks = num_rows * kChunksOfRow;
  PREFUSION_UNROLL
  for (int first = 0; first < kChunks; first += kBlockThreads) {
    const auto chunk = warp.thread() + first;
    const auto row = chunk / kChunksOfRow;
    const auto column = (chunk % kChunksOfRow) * kChunk;
    const auto is_of_tile = chunk < kChunks;
    const auto is_of_head = (row + first_row < count) & (column < Shape::kHeadSize);
    warp.copy_async(row * Shape::kPitch + column + tile, head,
                    Warp::widen(row + first_row) * row_stride + Warp::widen(column), is_of_tile, is_of_head);
  }
}

// Copies tiles 0 .. num_tiles-1 and uses each while the next one arrives. copy(tile) starts the copies of a tile into
// its stage; what was started before belongs to the first.
template <typename Warp, typename Copy, typename Use>
PREFUSION_HOST_DEVICE void walk_tiles(Warp& warp, int num_tiles, const Copy& copy, const Use& use) {
  copy(0);
  warp.commit_copies();
  for (int tile = 0; tile < num_tiles; ++tile) {
    if (tile + 1 < num_tiles) copy(tile + 1);
    warp.commit_copies();
    warp.template wait_for_copies<1>();
    warp.sync_block();
    use(tile);
    warp.sync_block();  // the stage is free again
  }
}

// Writes 16 rows of accumulators, rounded, as rows first_row .. +15 of a head; those from `count` on are left out.
template <typename Shape, typename Element, typename Warp>
PREFUSION_HOST_DEVICE void store_rows(Warp& warp, const Accumulator<Warp> (&sums)[Shape::kPaddedSize / 8],
                                      Element* head, int64_t row_stride, int first_row, int count) {
  const auto row = (warp.lane() >> 2) + first_row;
  PREFUSION_UNROLL
  for (int block = 0; block < Shape::kHeadSize / 8; ++block) {
    const auto column = (warp.lane() & 3) * 2 + 8 * block;
    PREFUSION_UNROLL
    for (int half = 0; half < 2; ++half) {
      const auto at = Warp::widen(row + 8 * half) * row_stride + Warp::widen(column);
      warp.store_pair(head, at,
                      Warp::template pack<Element>(sums[block].values[2 * half], sums[block].values[2 * half + 1]),
                      row + 8 * half < count);
    }
  }
}

}  // namespace prefusion::kernels::blockwise
