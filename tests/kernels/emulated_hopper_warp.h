#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/attention/hopper_shape.h"
#include "tests/kernels/emulated_warp.h"

// What sm_90 has beyond a warp's own instructions, on the CPU: barriers with phases, boxes fetched from tensors,
// products of groups of warps that read shared memory by descriptor. Layouts are those of the PTX manual, written out.
namespace prefusion::kernels::hopper {

using blockwise::Arrival;
using blockwise::EmulatedBlock;
using blockwise::EmulatedWarp;

// An mbarrier: a phase ends when all have arrived and all bytes that were announced have come.
class EmulatedBarrier {
 public:
  explicit EmulatedBarrier(int arrivals) : arrivals_(arrivals), pending_(arrivals) {}

  void arrive(int64_t announced_bytes = 0) {
    bytes_ += announced_bytes;
    --pending_;
    end_phase();
  }
  void come(int64_t bytes) {
    bytes_ -= bytes;
    end_phase();
  }
  // Whether the last phase of this parity has ended: before the first phase ends, that of parity 1 has.
  bool has_ended(int parity) const { return (num_phases_ & 1) != parity; }

 private:
  void end_phase() {
    if (pending_ < 0) throw std::logic_error("more arrivals than the barrier counts");
    if (pending_ > 0 || bytes_ != 0) return;
    ++num_phases_;
    pending_ = arrivals_;
  }

  int arrivals_, pending_;
  int64_t bytes_ = 0;
  int num_phases_ = 0;
};

// What the warps of a block share besides memory.
struct EmulatedHopperBlock {
  // `num_bytes` of tiles.
  EmulatedHopperBlock(int num_bytes, int num_floats, Arrival arrival)
      : memory(num_bytes / 2, num_floats, arrival, kBlockWarps) {
    for (int barrier = 0; barrier < kNumBarriers; ++barrier) barriers.emplace_back(arrivals_at(barrier));
    fetches.resize(kNumBarriers);
  }

  EmulatedBarrier& at(int barrier) { return barriers.at(static_cast<size_t>(barrier)); }
  void write(int byte, uint16_t bits) { memory.elements.at(swizzled(static_cast<uint32_t>(byte)) / 2) = bits; }

  // The fetches that were started for a barrier come.
  void complete(int barrier) {
    auto started = std::move(fetches.at(static_cast<size_t>(barrier)));
    fetches[static_cast<size_t>(barrier)].clear();
    for (const auto& fetch : started) fetch();
  }

  EmulatedBlock memory;
  std::vector<EmulatedBarrier> barriers;
  std::vector<std::vector<std::function<void()>>> fetches;  // by barrier
};

// A head's rows in memory, of which boxes of 64 elements are fetched; what is beyond its rows or elements is zero.
template <typename Element>
struct EmulatedMap {
  const Element* base = nullptr;
  blockwise::Layout layout;
  int head_size = 0, num_rows = 0, box_rows = 0;
};

template <typename T>
class EmulatedHopperWarp : public EmulatedWarp {
 public:
  using Map = EmulatedMap<T>;

  EmulatedHopperWarp(EmulatedHopperBlock& block, int index) : EmulatedWarp(block.memory, index), block_(block) {}

  static void give_registers() {}
  static void take_registers() {}
  static uint32_t address(int byte) { return static_cast<uint32_t>(byte); }

  void expect(int barrier, int bytes) {
    publish();
    block_.at(barrier).arrive(bytes);
  }
  void arrive(int barrier) {
    publish();
    block_.at(barrier).arrive();
    sync_block();  // others may go on before this warp does
  }
  void wait(int barrier, int parity) {
    for (int turns = 0; !block_.at(barrier).has_ended(parity); ++turns) {
      check(turns < 10000, "a barrier that nobody ends");
      if (!block_.fetches[static_cast<size_t>(barrier)].empty()) {
        block_.complete(barrier);
      } else {
        sync_block();  // a turn to all others
      }
    }
  }

  void fetch(const Map& map, const BoxPlace& place, int into, int barrier) {
    check(into % kPatternBytes == 0, "a box that does not begin a pattern");
    // The warp may have ended before the box comes.
    const auto copy = [&block = block_, map, place, into, barrier] {
      for (int row = 0; row < map.box_rows; ++row) {
        for (int element = 0; element < kPanelElements; ++element) {
          const int r = place.row + row, e = place.element + element;
          const bool exists = r < map.num_rows && e < map.head_size;
          const T* from = map.base + map.layout.offset(place.batch, place.head) + r * map.layout.row + e;
          block.write(into + row * kPanelRowBytes + 2 * element, exists ? from->x : uint16_t{0});
        }
      }
      block.at(barrier).come(int64_t{map.box_rows} * kPanelRowBytes);
    };
    block_.fetches[static_cast<size_t>(barrier)].push_back(copy);
    if (block_.memory.arrival == Arrival::kAtOnce) block_.complete(barrier);
  }

  // Others see it when this warp arrives at a barrier, or at once.
  template <typename Float, typename Mask>
  void store_shared(int base, const Int& index, const Float& value, const Mask& exists) {
    unseen_.push_back([=, this] { EmulatedWarp::store_shared(base, index, value, exists); });
    if (block_.memory.arrival == Arrival::kAtOnce) publish();
  }

  template <typename... Sums>
  void begin_products(Sums&... sums) {
    check(products_.empty(), "products that were never finished");
    begun_ = {sums...};
  }
  // They read shared memory and add up to sums as late as they may.
  template <typename Element, int count, typename Sums>
  void add(Sums (&sums)[count], const std::function<float(int row, int depth)>& left, uint64_t right, bool by_rows) {
    check(std::count(begun_.begin(), begun_.end(), sums) == 1, "products that were never begun");
    products_.push_back([this, &sums, left, right, by_rows] {
      float a[16][16];
      for (int row = 0; row < 16; ++row) {
        for (int depth = 0; depth < 16; ++depth) a[row][depth] = left(row, depth);
      }
      for (int column = 0; column < 8 * count; ++column) {
        float b[16];
        for (int depth = 0; depth < 16; ++depth) {
          b[depth] = number<Element>(
              by_rows ? read_row_major(right, column, depth) : read_depth_major(right, column, depth), 0);
        }
        for (int row = 0; row < 16; ++row) {
          float sum = 0;
          for (int depth = 0; depth < 16; ++depth) sum += a[row][depth] * b[depth];
          // Accumulator numbers as of mma.m16n8k16: a warp of the group has its own 16 rows.
          const int lane = row % 8 * 4 + column % 8 / 2, number_of_lane = row / 8 * 2 + column % 2;
          sums[column / 8].values[number_of_lane].of[static_cast<size_t>(lane)] += sum;
        }
      }
    });
  }
  template <typename Element, typename Sums, int count>
  void add_product(Sums (&sums)[count], uint64_t left, uint64_t right) {
    const int first_row = index() % kGroupWarps * 16;
    add<Element>(
        sums,
        [this, left, first_row](int row, int depth) {
          return number<Element>(read_row_major(left, first_row + row, depth), 0);
        },
        right, /*by_rows=*/true);
  }
  template <typename Element, typename Sums, int count, typename Fragment>
  requires requires(Fragment f) { f.words; }
  void add_product(Sums (&sums)[count], const Fragment& left, uint64_t right) {
    add<Element>(
        sums,
        [left](int row, int depth) {
          const size_t lane = static_cast<size_t>(row % 8 * 4 + depth % 8 / 2);
          return number<Element>(left.words[row / 8 + depth / 8 * 2].of[lane], depth % 2);
        },
        right, /*by_rows=*/false);
  }
  template <typename... Sums>
  void finish_products(Sums&... sums) {
    check(begun_ == std::vector<const void*>{sums...}, "sums that were not begun together");
    begun_.clear();
    for (const auto& product : products_) product();
    products_.clear();
  }

 private:
  uint16_t read(uint32_t byte) const { return block_.memory.elements.at(swizzled(byte) / 2); }

  static uint32_t field(uint64_t descriptor, int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; }
  static void check_descriptor(uint64_t descriptor) {
    check(descriptor >> 61 == 2, "a descriptor without the 128-byte pattern");
    check((descriptor >> 49 & 7) == 0, "a base offset, which patterns that begin at their multiples do not have");
  }

  // Depth along a row (major-ness K): groups of eight rows are a stride apart.
  uint16_t read_row_major(uint64_t descriptor, int row, int depth) const {
    check_descriptor(descriptor);
    return read(field(descriptor, 0) + static_cast<uint32_t>(row / 8) * field(descriptor, 32) +
                static_cast<uint32_t>(row % 8 * kPanelRowBytes + 2 * depth));
  }
  // Depth down the rows (major-ness MN): 64 columns a row, the next 64 a leading distance on; eight deep, the next
  // eight a stride on.
  uint16_t read_depth_major(uint64_t descriptor, int column, int depth) const {
    check_descriptor(descriptor);
    return read(field(descriptor, 0) + static_cast<uint32_t>(column / 64) * field(descriptor, 16) +
                static_cast<uint32_t>(depth / 8) * field(descriptor, 32) +
                static_cast<uint32_t>(depth % 8 * kPanelRowBytes + 2 * (column % 64)));
  }

  void publish() {
    for (const auto& store : unseen_) store();
    unseen_.clear();
  }

  EmulatedHopperBlock& block_;
  std::vector<std::function<void()>> products_, unseen_;
  std::vector<const void*> begun_;  // the sums of the products
};

}  // namespace prefusion::kernels::hopper
