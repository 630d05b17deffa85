#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cpu_rows.h"
#include "kernels/cpu_vector.h"
#include "kernels/layer_norm_modulate/modulate_math.h"

// One row of the modulated layer norm on the CPU, forward and backward, for each set of instructions.
namespace prefusion::kernels::detail {

// One row of `width` elements, as Real in `row`: mean and 1 / sqrt(variance + eps).
template <typename Real>
PREFUSION_INLINE void measure_row(const Real* __restrict__ row, int64_t width, Real eps, Real& mean, Real& rstd) {
  Turns<Real> sums, squares;
  int64_t j = 0;
  for (; j + kTurns <= width; j += kTurns) {
    for (int i = 0; i < kTurns; ++i) sums.values[i] += row[j + i];
  }
  for (int i = 0; j < width; ++i, ++j) sums.values[i] += row[j];
  mean = sums.total() / static_cast<Real>(width);
  const Real centre = mean;
  for (j = 0; j + kTurns <= width; j += kTurns) {
    for (int i = 0; i < kTurns; ++i) {
      const Real difference = row[j + i] - centre;
      squares.values[i] += difference * difference;
    }
  }
  for (int i = 0; j < width; ++i, ++j) {
    const Real difference = row[j] - centre;
    squares.values[i] += difference * difference;
  }
  rstd = 1 / std::sqrt(squares.total() / static_cast<Real>(width) + eps);
}

// What one row needs: pointers to its elements, and scratch of its width.
template <typename T, typename Real>
struct ForwardRow {
  const T *input, *scale, *shift;
  T* output;
  Real* row;  // scratch
  int64_t width;
  Real eps;
  Real *mean, *rstd;
};

template <typename T, typename Real>
PREFUSION_INLINE void forward_row(const ForwardRow<T, Real>& args) {
  widen(args.input, args.row, args.width);
  Real mean, rstd;
  measure_row(args.row, args.width, args.eps, mean, rstd);
  *args.mean = mean;
  *args.rstd = rstd;
  const Real* __restrict__ row = args.row;
  const T* __restrict__ scale = args.scale, * __restrict__ shift = args.shift;
  T* __restrict__ output = args.output;
  for (int64_t j = 0; j < args.width; ++j) {
    const Real normed = (row[j] - mean) * rstd;
    output[j] = static_cast<T>(modulated(normed, scale[j], shift[j]));
  }
}

template <typename T, typename Real>
struct BackwardRow {
  const T *input, *scale, *grad_output;
  T* grad_input;
  Real *normed, *grad;        // scratch
  Real *of_scale, *of_shift;  // [D] sums over rows, or null
  int64_t width;
  Real mean, rstd;
};

template <typename Real>
PREFUSION_INLINE void add_to_sums(const Real* __restrict__ normed, const Real* __restrict__ grad,
                                  Real* __restrict__ of_scale, Real* __restrict__ of_shift, int64_t width) {
  for (int64_t j = 0; j < width; ++j) {
    of_scale[j] += grad[j] * normed[j];
    of_shift[j] += grad[j];
  }
}

// With g = grad_output (1 + scale) and y the normalised row: rstd (g - mean(g) - y mean(g y)).
template <typename T, typename Real>
PREFUSION_INLINE void backward_row(const BackwardRow<T, Real>& args) {
  Real* __restrict__ normed = args.normed, * __restrict__ grad = args.grad;
  const T* __restrict__ input = args.input, * __restrict__ scale = args.scale;
  const T* __restrict__ grad_output = args.grad_output;
  const int64_t width = args.width;
  const Real mean = args.mean, rstd = args.rstd;
  for (int64_t j = 0; j < width; ++j) {
    normed[j] = (static_cast<Real>(input[j]) - mean) * rstd;
    grad[j] = static_cast<Real>(grad_output[j]);
  }
  if (args.of_scale != nullptr) add_to_sums(normed, grad, args.of_scale, args.of_shift, width);
  for (int64_t j = 0; j < width; ++j) grad[j] *= scale_factor<Real>(scale[j]);
  Turns<Real> grads, products;
  int64_t j = 0;
  for (; j + kTurns <= width; j += kTurns) {
    for (int i = 0; i < kTurns; ++i) {
      grads.values[i] += grad[j + i];
      products.values[i] += grad[j + i] * normed[j + i];
    }
  }
  for (int i = 0; j < width; ++i, ++j) {
    grads.values[i] += grad[j];
    products.values[i] += grad[j] * normed[j];
  }
  const Real mean_grad = grads.total() / static_cast<Real>(width);
  const Real mean_product = products.total() / static_cast<Real>(width);
  T* __restrict__ grad_input = args.grad_input;
  for (j = 0; j < width; ++j) {
    grad_input[j] = static_cast<T>(rstd * (grad[j] - mean_grad - normed[j] * mean_product));
  }
}

PREFUSION_VECTOR_STEP(Forward, forward_row, ForwardRow);
PREFUSION_VECTOR_STEP(Backward, backward_row, BackwardRow);

}  // namespace prefusion::kernels::detail
