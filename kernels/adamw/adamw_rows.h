#pragma once

#include "kernels/adamw/adamw_element.h"
#include "kernels/packet.h"

// A launch of AdamW on the GPU, as plain arithmetic that tests run on the host: a table of parameters, cut into chunks
// that a block of threads takes one after the other.
namespace prefusion::kernels::detail {

// One parameter; T is the gradient's type.
template <typename T>
struct AdamWRow {
  T* parameter;  // or null
  float* master;
  const T* gradient;
  float *exp_avg, *exp_avg_sq;
  const float* count;
  int64_t length;
  bool takes_packets;  // all of it begins where packets may
};

template <typename T>
AdamWRow<T> adamw_row(const AdamWTensors& tensors) {
  AdamWRow<T> row{.parameter = tensors.parameter.defined() ? tensors.parameter.mutable_data_ptr<T>() : nullptr,
                  .master = tensors.master.mutable_data_ptr<float>(),
                  .gradient = tensors.gradient.const_data_ptr<T>(),
                  .exp_avg = tensors.exp_avg.mutable_data_ptr<float>(),
                  .exp_avg_sq = tensors.exp_avg_sq.mutable_data_ptr<float>(),
                  .count = tensors.count.const_data_ptr<float>(),
                  .length = tensors.master.numel(),
                  .takes_packets = true};
  for (const void* pointer :
       std::initializer_list<const void*>{row.parameter, row.master, row.gradient, row.exp_avg, row.exp_avg_sq}) {
    row.takes_packets = row.takes_packets && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
  }
  return row;
}

// A launch's arguments; they have to fit into 4 KB.
template <typename T>
struct AdamWTable {
  static constexpr int kMaxRows = 48;
  static constexpr int64_t kChunk = 4096;  // elements, a multiple of every packet
  static constexpr int kPacket = 4;        // elements: 16 bytes of fp32

  AdamWRow<T> rows[kMaxRows];
  int32_t first_chunk[kMaxRows + 1] = {};  // of each row, and how many there are
  int num_rows = 0;

  // False where the table is full.
  bool add(const AdamWRow<T>& row) {
    const int64_t chunks = first_chunk[num_rows] + (row.length + kChunk - 1) / kChunk;
    if (num_rows == kMaxRows || (num_rows > 0 && chunks > INT32_MAX)) return false;
    rows[num_rows++] = row;
    first_chunk[num_rows] = static_cast<int32_t>(chunks);
    return true;
  }
  PREFUSION_HOST_DEVICE int num_chunks() const { return first_chunk[num_rows]; }

  PREFUSION_HOST_DEVICE int row_of(int chunk) const {
    int low = 0, high = num_rows;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first_chunk[middle] <= chunk ? low : high) = middle;
    }
    return low;
  }

  // What thread `thread` of `threads` does of a chunk.
  PREFUSION_HOST_DEVICE void step(int chunk, int thread, int threads, const AdamWConstants& constants,
                                  float gradient_factor) const {
    const int number = row_of(chunk);
    const AdamWRow<T>& row = rows[number];
    const AdamWFactors factors = adamw_factors(constants, gradient_factor, *row.count);
    const int64_t begin = (chunk - first_chunk[number]) * kChunk;
    const int64_t end = begin + kChunk < row.length ? begin + kChunk : row.length;
    const int64_t packets_end = row.takes_packets ? begin + (end - begin) / kPacket * kPacket : begin;
    for (int64_t i = begin + int64_t{thread} * kPacket; i < packets_end; i += int64_t{threads} * kPacket) {
      move<kPacket>(row, i, factors);
    }
    for (int64_t i = packets_end + thread; i < end; i += threads) move<1>(row, i, factors);
  }

 private:
  template <int kSize>
  PREFUSION_HOST_DEVICE static void move(const AdamWRow<T>& row, int64_t at, const AdamWFactors& factors) {
    const auto gradient = load_packet<kSize>(row.gradient + at);
    auto master = load_packet<kSize>(row.master + at), exp_avg = load_packet<kSize>(row.exp_avg + at),
         exp_avg_sq = load_packet<kSize>(row.exp_avg_sq + at);
    Packet<T, kSize> rounded;
    for (int i = 0; i < kSize; ++i) {
      master.values[i] = adamw_element(master.values[i], static_cast<float>(gradient.values[i]), exp_avg.values[i],
                                       exp_avg_sq.values[i], factors);
      rounded.values[i] = static_cast<T>(master.values[i]);
    }
    store_packet(row.master + at, master);
    store_packet(row.exp_avg + at, exp_avg);
    store_packet(row.exp_avg_sq + at, exp_avg_sq);
    if (row.parameter != nullptr) store_packet(row.parameter + at, rounded);
  }
};

}  // namespace prefusion::kernels::detail
