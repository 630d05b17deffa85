#pragma once

#include "kernels/packet.h"

// The gradients of a gated residual on the GPU, as plain arithmetic that tests run on the host: a thread has a packet
// of columns and walks down a chunk of rows.
namespace prefusion::kernels {

template <int kSize, typename T, typename Real>
struct GatedColumns {
  const T *grad, *output, *gate;
  T* grad_output;
  Real* partial;  // [items, chunks, width]
  int64_t rows_per_item, width, gate_stride, chunk_rows, chunks;

  PREFUSION_HOST_DEVICE void differentiate(int64_t item, int64_t chunk, int64_t column) const {
    const auto gates = load_packet<kSize>(gate + item * gate_stride + column);
    Real sums[kSize] = {};
    const int64_t first = chunk * chunk_rows;
    const int64_t last = first + chunk_rows < rows_per_item ? first + chunk_rows : rows_per_item;
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = (item * rows_per_item + row) * width + column;
      auto grads = load_packet<kSize>(grad + at);
      const auto outputs = load_packet<kSize>(output + at);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const Real g = static_cast<Real>(grads.values[i]);
        sums[i] += g * static_cast<Real>(outputs.values[i]);
        grads.values[i] = static_cast<T>(g * static_cast<Real>(gates.values[i]));
      }
      store_packet(grad_output + at, grads);
    }
    PREFUSION_UNROLL
    for (int i = 0; i < kSize; ++i) partial[(item * chunks + chunk) * width + column + i] = sums[i];
  }
};

}  // namespace prefusion::kernels
