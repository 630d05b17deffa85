#pragma once

#include <cstdint>

#include "core/philox.h"
#include "kernels/inlining.h"

// How attention is cut into blocks: sizes, and where things lie in shared memory. Plain arithmetic, for kernels and for
// the emulation that tests them.
namespace prefusion::kernels::blockwise {

constexpr int kLanes = 32;
constexpr int kWarps = 4;
constexpr int kBlockThreads = kLanes * kWarps;
constexpr int kWarpRows = 16;                   // of a matrix fragment: a warp owns so many rows of its block
constexpr int kBlockRows = kWarps * kWarpRows;  // queries of a block, or keys where a block owns keys
constexpr int kChunk = 8;                       // 16-bit elements that are copied at once: 16 bytes
constexpr int kStages = 2;                      // a tile is used while the next one arrives

// A head of `head_size` elements, zero-padded to a multiple of a matrix product's depth: 40 becomes 48, not 64. The
// other tiles of a block have `tile_rows` rows: keys, or queries where a block owns keys.
template <int head_size, int tile_rows>
struct BlockShape {
  static_assert(head_size % kChunk == 0, "rows are copied 16 bytes at a time");
  static_assert(tile_rows % 16 == 0, "a product's depth");
  static constexpr int kHeadSize = head_size;
  static constexpr int kTileRows = tile_rows;
  static constexpr int kPaddedSize = (head_size + 15) / 16 * 16;
  static constexpr int kDepthSteps = kPaddedSize / 16;
  // Eight rows that are read together start in eight different groups of banks: an odd number of chunks apart.
  static constexpr int kPitch = kPaddedSize + kChunk;
  static constexpr int kOwnElements = kBlockRows * kPitch;
  static constexpr int kTileElements = tile_rows * kPitch;

  // Shared memory of the forward pass, in elements: queries, then keys and values of each stage.
  static constexpr int kForwardElements = kOwnElements + kStages * 2 * kTileElements;
  // Of the backward passes: two own tiles, two others a stage; then two floats a query of each stage.
  static constexpr int kBackwardElements = 2 * kOwnElements + kStages * 2 * kTileElements;
  static constexpr int kForwardBytes = 2 * kForwardElements;
  static constexpr int kBackwardBytes = 2 * kBackwardElements + kStages * 2 * tile_rows * 4;
};

PREFUSION_HOST_DEVICE constexpr int64_t divide_up(int64_t count, int64_t by) {
  return (count + by - 1) / by;
}

// Where rows of one tensor of an attention lie: element strides of batch, head and row. Elements of a row follow each
// other; rows start at multiples of 16 bytes.
struct Layout {
  int64_t batch = 0, head = 0, row = 0;

  PREFUSION_HOST_DEVICE int64_t offset(int64_t batch_index, int64_t head_index) const {
    return batch_index * batch + head_index * head;
  }
};

// One launch. Numbers of the softmax are those of base 2: scores times scale times log2(e).
template <typename Element>
struct AttentionArgs {
  const Element* query = nullptr;
  const Element* key = nullptr;
  const Element* value = nullptr;
  Layout query_layout, key_layout, value_layout;
  int64_t num_heads = 0;
  int num_queries = 0, num_keys = 0;
  float scale = 1;       // of the products of queries and keys
  float scale_log2 = 1;  // scale * log2(e)
  // [B, H, num_queries] fp32: log2 of each row's sum of exponentials, which the backward pass recomputes the softmax
  // from.
  float* log_sum = nullptr;
  Element* output = nullptr;
  Layout output_layout;
};

template <typename Element>
struct AttentionGradArgs {
  AttentionArgs<Element> forward;
  const Element* grad_output = nullptr;
  Layout grad_output_layout;
  const float* row_product = nullptr;  // [B, H, num_queries] fp32: sum over a row of output * grad_output
  Element* grad_query = nullptr;
  Element* grad_key = nullptr;
  Element* grad_value = nullptr;
  Layout grad_query_layout, grad_key_layout, grad_value_layout;
};

}  // namespace prefusion::kernels::blockwise
