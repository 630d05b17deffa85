#pragma once

#include "kernels/geglu/geglu_math.h"
#include "kernels/packet.h"

// One packet of the gated activation, for the kernels and the tests that run it on the host. `width` is D; pointers are
// to whole tensors.
namespace prefusion::kernels {

template <int kSize, typename T, typename Real>
struct GegluPackets {
  const T* input;        // [rows, 2 D]
  const T* grad_output;  // [rows, D], backward only
  T* output;             // [rows, D], or backward the gradient of the input
  int64_t rows, width;

  PREFUSION_HOST_DEVICE void forward(int64_t row, int64_t place) const {
    const int64_t column = place * kSize;
    const T* from = input + 2 * row * width + column;
    const auto value = load_packet<kSize>(from), gate = load_packet<kSize>(from + width);
    Packet<T, kSize> result;
    PREFUSION_UNROLL
    for (int i = 0; i < kSize; ++i) {
      result.values[i] =
          static_cast<T>(gated_gelu(static_cast<Real>(value.values[i]), static_cast<Real>(gate.values[i])));
    }
    store_packet(output + row * width + column, result);
  }

  PREFUSION_HOST_DEVICE void backward(int64_t row, int64_t place) const {
    const int64_t column = place * kSize, first = 2 * row * width + column;
    const auto value = load_packet<kSize>(input + first), gate = load_packet<kSize>(input + first + width);
    const auto grads = load_packet<kSize>(grad_output + row * width + column);
    Packet<T, kSize> grad_value, grad_gate;
    PREFUSION_UNROLL
    for (int i = 0; i < kSize; ++i) {
      const GatedGeluGradient<Real> gradient = gated_gelu_gradient(
          static_cast<Real>(value.values[i]), static_cast<Real>(gate.values[i]), static_cast<Real>(grads.values[i]));
      grad_value.values[i] = static_cast<T>(gradient.value);
      grad_gate.values[i] = static_cast<T>(gradient.gate);
    }
    store_packet(output + first, grad_value);
    store_packet(output + first + width, grad_gate);
  }
};

}  // namespace prefusion::kernels
