#pragma once

#include <cstdint>

#include "core/philox.h"
#include "kernels/inlining.h"

// Rows cut into packets, the elements that a thread of the GPU loads or stores with one instruction of 16 bytes. Plain
// arithmetic, for kernels and for the tests that run it over every packet.
namespace prefusion::kernels {

template <typename T, int kSize>
struct alignas(kSize * sizeof(T)) Packet {
  T values[kSize];
};

// Elements of T in the largest packet.
template <typename T>
constexpr int kPacketSize = 16 / sizeof(T);

// Whether rows of `width` elements that start at `pointer` can be read in packets of 16 bytes.
template <typename T>
bool takes_packets(const T* pointer, int64_t width) {
  return width % kPacketSize<T> == 0 && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

template <int kSize, typename T>
PREFUSION_HOST_DEVICE Packet<T, kSize> load_packet(const T* from) {
  return *reinterpret_cast<const Packet<T, kSize>*>(from);
}

template <int kSize, typename T>
PREFUSION_HOST_DEVICE void store_packet(T* to, const Packet<T, kSize>& packet) {
  *reinterpret_cast<Packet<T, kSize>*>(to) = packet;
}

// The packets number start, start + stride, ... of rows of `per_row` packets each, as row and place in it: one division
// at the start, none on the way.
class PacketWalk {
 public:
  PREFUSION_HOST_DEVICE PacketWalk(uint32_t start, uint32_t stride, uint32_t per_row)
      : row_(start / per_row),
        place_(start % per_row),
        row_stride_(stride / per_row),
        place_stride_(stride % per_row),
        per_row_(per_row) {}

  PREFUSION_HOST_DEVICE int64_t row() const { return row_; }
  PREFUSION_HOST_DEVICE int64_t place() const { return place_; }

  PREFUSION_HOST_DEVICE void advance() {
    row_ += row_stride_;
    place_ += place_stride_;  // both below 2^31
    if (place_ >= per_row_) {
      place_ -= per_row_;
      ++row_;
    }
  }

 private:
  int64_t row_;
  uint32_t place_, row_stride_, place_stride_, per_row_;
};

}  // namespace prefusion::kernels
