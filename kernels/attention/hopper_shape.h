#pragma once

#include "kernels/attention/block_shape.h"

// How attention is cut into blocks where warps multiply in groups of four straight from shared memory (wgmma, sm_90a;
// "FlashAttention-3", arXiv 2407.08608). Plain arithmetic, for the kernel and for the emulation that tests it.
namespace prefusion::kernels::hopper {

constexpr int kGroupWarps = 4;
constexpr int kConsumers = 2;                                // groups that multiply, each its own rows
constexpr int kBlockWarps = (kConsumers + 1) * kGroupWarps;  // the last group fetches tiles for the others
constexpr int kBlockThreads = kBlockWarps * blockwise::kLanes;
constexpr int kGroupRows = kGroupWarps * blockwise::kWarpRows;  // of a product: 64
constexpr int kBlockRows = kConsumers * kGroupRows;             // queries of a block, or keys where a block owns keys
constexpr int kStages = 2;

// Tiles are panels of 64 elements a row, side by side in memory: rows of 128 bytes, in which the hardware swaps chunks
// of 16 bytes by the row (CU_TENSOR_MAP_SWIZZLE_128B), so that eight rows read at one column meet different banks. The
// pattern repeats every eight rows, and panels begin at multiples of that.
constexpr int kPanelElements = 64;
constexpr int kPanelRowBytes = 2 * kPanelElements;
constexpr int kPatternBytes = 8 * kPanelRowBytes;

// Where the chunk with a byte of an unswizzled panel is: bits 7 to 9 of an address are added to bits 4 to 6.
PREFUSION_HOST_DEVICE constexpr uint32_t swizzled(uint32_t byte) {
  return byte ^ ((byte >> 7 & 7) << 4);
}

template <int head_size, int tile_rows>
struct HopperShape {
  static_assert(head_size % blockwise::kChunk == 0, "a row's bytes are a multiple of 16");
  static_assert(tile_rows % 16 == 0, "a product's depth");
  static constexpr int kHeadSize = head_size;
  static constexpr int kTileRows = tile_rows;
  static constexpr int kPaddedSize = (head_size + 15) / 16 * 16;
  static constexpr int kDepthSteps = kPaddedSize / 16;
  static constexpr int kPanels = (head_size + kPanelElements - 1) / kPanelElements;

  static constexpr int kOwnPanelBytes = kBlockRows * kPanelRowBytes;
  static constexpr int kTilePanelBytes = tile_rows * kPanelRowBytes;
  static constexpr int kOwnBytes = kPanels * kOwnPanelBytes;
  static constexpr int kTileBytes = kPanels * kTilePanelBytes;
  static_assert(kOwnPanelBytes % kPatternBytes == 0 && kTilePanelBytes % kPatternBytes == 0, "panels begin a pattern");
};

// Barriers of a block, each 8 bytes: its own rows have arrived; for each stage, its tiles have arrived, and it is free.
constexpr int kNumBarriers = 1 + 2 * kStages;
constexpr int kOwnArrived = 0;
PREFUSION_HOST_DEVICE constexpr int arrived(int stage) {
  return 1 + stage;
}
PREFUSION_HOST_DEVICE constexpr int freed(int stage) {
  return 1 + kStages + stage;
}
// Who arrives at a barrier before its phase ends: the one that fetches, or every warp that has read.
PREFUSION_HOST_DEVICE constexpr int arrivals_at(int barrier) {
  return barrier < freed(0) ? 1 : kConsumers * kGroupWarps;
}

// Rows of the tiles that a block walks over: as many as registers and shared memory hold two stages of, for the forward
// pass and for the gradients of queries and of keys and values. Up to kPromptKeys keys are one tile.
constexpr int kPromptKeys = 80;
PREFUSION_HOST_DEVICE constexpr int forward_rows(int head_size) {
  return head_size <= 96 ? 128 : head_size <= 128 ? 96 : 80;
}
PREFUSION_HOST_DEVICE constexpr int query_grad_rows(int head_size) {
  return head_size <= 128 ? 128 : 80;
}
PREFUSION_HOST_DEVICE constexpr int key_grad_rows(int head_size) {
  return head_size <= 64 ? 128 : head_size <= 96 ? 96 : head_size <= 128 ? 64 : 48;
}

// Shared memory of a block in bytes: `own_tiles` of its rows; for each stage two tiles of the rows it walks over, and
// for each of those rows `row_numbers` floats; barriers.
template <typename Shape, int own_tiles, int row_numbers>
struct BlockMemory {
  static constexpr int kOwnTiles = own_tiles;
  static constexpr int kFloats = kStages * row_numbers * Shape::kTileRows;
  static constexpr int kFloatsAt = own_tiles * Shape::kOwnBytes + kStages * 2 * Shape::kTileBytes;
  static constexpr int kBarriersAt = kFloatsAt + 4 * kFloats;
  static constexpr int kBytes = kBarriersAt + 8 * kNumBarriers;
  static_assert(kBytes <= 227 * 1024, "what a block of sm_90 may have");

  PREFUSION_HOST_DEVICE static constexpr int own(int which) { return which * Shape::kOwnBytes; }
  PREFUSION_HOST_DEVICE static constexpr int tile(int stage, int which) {
    return own(own_tiles) + (2 * stage + which) * Shape::kTileBytes;
  }
  // Counted in floats.
  PREFUSION_HOST_DEVICE static constexpr int numbers(int stage) { return stage * row_numbers * Shape::kTileRows; }
};

// Where a box that is fetched begins in a tensor [B, H, rows, D].
struct BoxPlace {
  int element, row, head, batch;
};

// An operand in shared memory as instructions are told of it (PTX ISA, "Matrix descriptor"): where it begins, how far
// its parts are from each other, and that it is swizzled over 128 bytes.
PREFUSION_HOST_DEVICE constexpr uint64_t descriptor(uint32_t begin, uint32_t leading, uint32_t stride) {
  const auto field = [](uint32_t bytes) { return static_cast<uint64_t>(bytes >> 4 & 0x3fff); };
  return field(begin) | field(leading) << 16 | field(stride) << 32 | uint64_t{1} << 62;
}

// 16 elements from 16 `step` on of rows that begin at `tile`, as the depth of a product; panels are `panel` bytes
// apart. Eight rows after eight rows; the leading distance has no meaning here.
PREFUSION_HOST_DEVICE constexpr uint64_t elements_as_depth(uint32_t tile, uint32_t panel, int step) {
  return descriptor(tile + static_cast<uint32_t>(step / 4) * panel + static_cast<uint32_t>(step % 4) * 32, 16,
                    kPatternBytes);
}

// Rows 16 `block` .. +15 of a tile as the depth of a product, elements as its columns: the leading distance is from 64
// columns to the next.
PREFUSION_HOST_DEVICE constexpr uint64_t rows_as_depth(uint32_t tile, uint32_t panel, int block) {
  return descriptor(tile + static_cast<uint32_t>(block) * 2 * kPatternBytes, panel, kPatternBytes);
}

}  // namespace prefusion::kernels::hopper
