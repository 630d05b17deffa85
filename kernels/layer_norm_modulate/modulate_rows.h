#pragma once

#include <cmath>

#include "kernels/layer_norm_modulate/modulate_math.h"
#include "kernels/packet.h"

// The modulated layer norm on the GPU, as plain arithmetic that tests run on the host. A warp owns a row, its lanes
// take turns at the packets; the steps between which lanes add up their numbers are functions of their own. Sums over
// rows are a thread's for each column and chunk of rows.
namespace prefusion::kernels {

constexpr int kModulateLanes = 32;

template <typename Real>
struct RowSums {
  Real grads;     // of g = grad_output (1 + scale)
  Real products;  // of g times the normalised row
};

template <int kSize, typename T, typename Real>
struct ModulateRows {
  const T *input, *scale, *shift, *grad_output;
  T* output;  // backward the gradient of the input
  Real *mean, *rstd;
  int64_t rows, rows_per_item, width, scale_stride, shift_stride;
  Real eps;

  PREFUSION_HOST_DEVICE Real sum(int64_t row, int lane) const {
    Real sum = 0;
    for (int64_t j = lane * kSize; j < width; j += kModulateLanes * kSize) {
      const auto packet = load_packet<kSize>(input + row * width + j);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) sum += static_cast<Real>(packet.values[i]);
    }
    return sum;
  }

  PREFUSION_HOST_DEVICE Real sum_of_squares(int64_t row, int lane, Real row_mean) const {
    Real sum = 0;
    for (int64_t j = lane * kSize; j < width; j += kModulateLanes * kSize) {
      const auto packet = load_packet<kSize>(input + row * width + j);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const Real difference = static_cast<Real>(packet.values[i]) - row_mean;
        sum += difference * difference;
      }
    }
    return sum;
  }

  // Of the sums of all lanes.
  PREFUSION_HOST_DEVICE Real mean_of(Real total) const { return total / static_cast<Real>(width); }
  PREFUSION_HOST_DEVICE Real rstd_of(Real total) const { return 1 / sqrt(total / static_cast<Real>(width) + eps); }

  PREFUSION_HOST_DEVICE void write(int64_t row, int lane, Real row_mean, Real row_rstd) const {
    const T* row_scale = scale + row / rows_per_item * scale_stride;
    const T* row_shift = shift + row / rows_per_item * shift_stride;
    for (int64_t j = lane * kSize; j < width; j += kModulateLanes * kSize) {
      auto packet = load_packet<kSize>(input + row * width + j);
      const auto scales = load_packet<kSize>(row_scale + j), shifts = load_packet<kSize>(row_shift + j);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const Real normed = (static_cast<Real>(packet.values[i]) - row_mean) * row_rstd;
        packet.values[i] = static_cast<T>(modulated(normed, scales.values[i], shifts.values[i]));
      }
      store_packet(output + row * width + j, packet);
    }
    if (lane != 0) return;
    mean[row] = row_mean;
    rstd[row] = row_rstd;
  }

  PREFUSION_HOST_DEVICE RowSums<Real> gradient_sums(int64_t row, int lane) const {
    RowSums<Real> sums{0, 0};
    const T* row_scale = scale + row / rows_per_item * scale_stride;
    for (int64_t j = lane * kSize; j < width; j += kModulateLanes * kSize) {
      const auto values = load_packet<kSize>(input + row * width + j);
      const auto grads = load_packet<kSize>(grad_output + row * width + j), scales = load_packet<kSize>(row_scale + j);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const Real normed = (static_cast<Real>(values.values[i]) - mean[row]) * rstd[row];
        const Real grad = static_cast<Real>(grads.values[i]) * scale_factor<Real>(scales.values[i]);
        sums.grads += grad;
        sums.products += grad * normed;
      }
    }
    return sums;
  }

  // `total` of all lanes.
  PREFUSION_HOST_DEVICE void write_gradient(int64_t row, int lane, const RowSums<Real>& total) const {
    const T* row_scale = scale + row / rows_per_item * scale_stride;
    const Real mean_grad = mean_of(total.grads), mean_product = mean_of(total.products);
    for (int64_t j = lane * kSize; j < width; j += kModulateLanes * kSize) {
      auto values = load_packet<kSize>(input + row * width + j);
      const auto grads = load_packet<kSize>(grad_output + row * width + j), scales = load_packet<kSize>(row_scale + j);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const Real normed = (static_cast<Real>(values.values[i]) - mean[row]) * rstd[row];
        const Real grad = static_cast<Real>(grads.values[i]) * scale_factor<Real>(scales.values[i]);
        values.values[i] = static_cast<T>(rstd[row] * (grad - mean_grad - normed * mean_product));
      }
      store_packet(output + row * width + j, values);
    }
  }
};

// Gradients of scale and shift: sums over an item's rows, chunk after chunk.
template <typename T, typename Real>
struct ModulateColumns {
  const T *input, *grad_output;
  const Real *mean, *rstd;
  Real* partial;  // [items, chunks, 2, width]
  Real *grad_scale, *grad_shift;
  int64_t rows_per_item, width, chunk_rows, chunks;

  PREFUSION_HOST_DEVICE void add_chunk(int64_t item, int64_t chunk, int64_t column) const {
    Real of_scale = 0, of_shift = 0;
    const int64_t first = chunk * chunk_rows;
    const int64_t count = rows_per_item - first < chunk_rows ? rows_per_item - first : chunk_rows;
    for (int64_t row = item * rows_per_item + first, end = row + count; row < end; ++row) {
      const Real grad = static_cast<Real>(grad_output[row * width + column]);
      of_scale += grad * ((static_cast<Real>(input[row * width + column]) - mean[row]) * rstd[row]);
      of_shift += grad;
    }
    Real* sums = partial + (item * chunks + chunk) * 2 * width + column;
    sums[0] = of_scale;
    sums[width] = of_shift;
  }

  PREFUSION_HOST_DEVICE void add_chunks_of(int64_t item, int64_t column) const {
    Real of_scale = 0, of_shift = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const Real* sums = partial + (item * chunks + chunk) * 2 * width + column;
      of_scale += sums[0];
      of_shift += sums[width];
    }
    grad_scale[item * width + column] = of_scale;
    grad_shift[item * width + column] = of_shift;
  }
};

}  // namespace prefusion::kernels
