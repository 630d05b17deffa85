#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu_rows.h"
#include "kernels/cpu_vector.h"
#include "kernels/dispatch.h"
#include "kernels/parallel_for.h"
#include "kernels/rms_norm_rotary/rms_norm_rotary.h"
#include "kernels/rms_norm_rotary/rotary_math.h"

namespace prefusion::kernels::detail {
namespace {

constexpr int64_t kGrain = 16384;  // elements that are worth a thread

// One head of a token, and scratch of its width.
template <typename T, typename Real>
struct HeadRow {
  const T *states, *grad_output;
  T* output;  // or the gradient of the states
  const Real* weight;
  const float *cosines, *sines;  // of the token, or null
  Real *first, *second;          // scratch
  Real* weight_sums;             // [width], or null
  int64_t width;
  Real eps;
  Real* rstd;
};

template <typename T, typename Real>
PREFUSION_INLINE Real mean_of_squares(const T* __restrict__ states, int64_t width) {
  Turns<Real> squares;
  int64_t j = 0;
  for (; j + kTurns <= width; j += kTurns) {
    for (int i = 0; i < kTurns; ++i) {
      const Real value = static_cast<Real>(states[j + i]);
      squares.values[i] += value * value;
    }
  }
  for (int i = 0; j < width; ++i, ++j) squares.values[i] += static_cast<Real>(states[j]) * static_cast<Real>(states[j]);
  return squares.total() / static_cast<Real>(width);
}

template <typename T, typename Real>
PREFUSION_INLINE void turn(const Real* __restrict__ from, const float* __restrict__ cosines,
                           const float* __restrict__ sines, T* __restrict__ to, int64_t width) {
  for (int64_t i = 0; i < width / 2; ++i) {
    const Pair<Real> pair =
        turned<Real>({from[2 * i], from[2 * i + 1]}, static_cast<Real>(cosines[i]), static_cast<Real>(sines[i]));
    to[2 * i] = static_cast<T>(pair.first);
    to[2 * i + 1] = static_cast<T>(pair.second);
  }
}

template <typename T, typename Real>
PREFUSION_INLINE void norm_row(const T* __restrict__ states, const Real* __restrict__ weight, Real rstd,
                               Real* __restrict__ to, int64_t width) {
  for (int64_t j = 0; j < width; ++j) to[j] = rms_normed(states[j], rstd, weight[j]);
}

template <typename T, typename Real>
PREFUSION_INLINE void narrow(const Real* __restrict__ from, T* __restrict__ to, int64_t width) {
  for (int64_t j = 0; j < width; ++j) to[j] = static_cast<T>(from[j]);
}

template <typename T, typename Real>
PREFUSION_INLINE void forward_row(const HeadRow<T, Real>& row) {
  const Real rstd = 1 / std::sqrt(mean_of_squares<T, Real>(row.states, row.width) + row.eps);
  *row.rstd = rstd;
  norm_row(row.states, row.weight, rstd, row.first, row.width);
  if (row.cosines == nullptr) return narrow(row.first, row.output, row.width);
  turn(row.first, row.cosines, row.sines, row.output, row.width);
}

// The gradient behind the norm: that of the output turned back.
template <typename T, typename Real>
PREFUSION_INLINE void turn_back(const T* __restrict__ from, const float* __restrict__ cosines,
                                const float* __restrict__ sines, Real* __restrict__ to, int64_t width) {
  for (int64_t i = 0; i < width / 2; ++i) {
    const Pair<Real> pair = turned<Real>({static_cast<Real>(from[2 * i]), static_cast<Real>(from[2 * i + 1])},
                                         static_cast<Real>(cosines[i]), -static_cast<Real>(sines[i]));
    to[2 * i] = pair.first;
    to[2 * i + 1] = pair.second;
  }
}

template <typename Real>
PREFUSION_INLINE void add_products(const Real* __restrict__ a, const Real* __restrict__ b, Real* __restrict__ sums,
                                   int64_t width) {
  for (int64_t j = 0; j < width; ++j) sums[j] += a[j] * b[j];
}

template <typename T, typename Real>
PREFUSION_INLINE void finish_gradient(const Real* __restrict__ normalised, Real* __restrict__ grad,
                                      const Real* __restrict__ weight, Real rstd, T* __restrict__ to, int64_t width) {
  Turns<Real> products;
  int64_t j = 0;
  for (; j + kTurns <= width; j += kTurns) {
    for (int i = 0; i < kTurns; ++i) {
      grad[j + i] *= weight[j + i];
      products.values[i] += grad[j + i] * normalised[j + i];
    }
  }
  for (int i = 0; j < width; ++i, ++j) {
    grad[j] *= weight[j];
    products.values[i] += grad[j] * normalised[j];
  }
  const Real mean_product = products.total() / static_cast<Real>(width);
  for (j = 0; j < width; ++j) to[j] = static_cast<T>(rstd * (grad[j] - normalised[j] * mean_product));
}

// With g the gradient behind the norm times the weight and y the states times rstd: rstd (g - y mean(g y)).
template <typename T, typename Real>
PREFUSION_INLINE void backward_row(const HeadRow<T, Real>& row) {
  if (row.cosines == nullptr) {
    widen(row.grad_output, row.second, row.width);
  } else {
    turn_back(row.grad_output, row.cosines, row.sines, row.second, row.width);
  }
  const Real rstd = *row.rstd;
  widen(row.states, row.first, row.width);
  Real* normalised = row.first;
  for (int64_t j = 0; j < row.width; ++j) normalised[j] *= rstd;
  if (row.weight_sums != nullptr) add_products(normalised, row.second, row.weight_sums, row.width);
  finish_gradient(normalised, row.second, row.weight, rstd, row.output, row.width);
}

PREFUSION_VECTOR_STEP(Forward, forward_row, HeadRow);
PREFUSION_VECTOR_STEP(Backward, backward_row, HeadRow);

// What forward and backward share of row `index`.
template <typename T, typename Real>
HeadRow<T, Real> row_of(const RmsNormRotaryArgs& args, int64_t index, std::vector<Real>& scratch) {
  const int64_t width = args.states.size(1);
  const bool is_turned = args.cosines.defined();
  const int64_t token = is_turned ? index / args.rows_per_token % args.cosines.size(0) : 0;
  return {.states = args.states.const_data_ptr<T>() + index * width,
          .grad_output = nullptr,
          .output = args.output.mutable_data_ptr<T>() + index * width,
          .weight = args.weight.const_data_ptr<Real>(),
          .cosines = is_turned ? args.cosines.const_data_ptr<float>() + token * (width / 2) : nullptr,
          .sines = is_turned ? args.sines.const_data_ptr<float>() + token * (width / 2) : nullptr,
          .first = scratch.data(),
          .second = scratch.data() + width,
          .weight_sums = nullptr,
          .width = width,
          .eps = static_cast<Real>(args.eps),
          .rstd = args.rstd.mutable_data_ptr<Real>() + index};
}

template <typename T, typename Real>
void forward(const RmsNormRotaryArgs& args) {
  const int64_t rows = args.states.size(0), width = args.states.size(1);
  const auto run = Forward<T, Real>::best();
  parallel_for(rows, std::max<int64_t>(1, kGrain / width), [&](int64_t begin, int64_t end) {
    std::vector<Real> scratch(static_cast<size_t>(2 * width));
    for (int64_t index = begin; index < end; ++index) run(row_of<T, Real>(args, index, scratch));
  });
}

template <typename T, typename Real>
void backward(const RmsNormRotaryGradArgs& args) {
  const int64_t rows = args.forward.states.size(0), width = args.forward.states.size(1);
  const int64_t chunks = (rows + kHeadRowsChunk - 1) / kHeadRowsChunk;
  const T* grad_output = args.grad_output.const_data_ptr<T>();
  Real* partial = args.partial.defined() ? args.partial.mutable_data_ptr<Real>() : nullptr;
  const auto run = Backward<T, Real>::best();
  const int64_t grain = std::max<int64_t>(1, kGrain / (width * std::min(rows, kHeadRowsChunk)));
  parallel_for(chunks, grain, [&](int64_t begin, int64_t end) {
    std::vector<Real> scratch(static_cast<size_t>(2 * width));
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      Real* sums = partial == nullptr ? nullptr : partial + chunk * width;
      if (sums != nullptr) std::fill_n(sums, width, Real{0});
      for (int64_t index = chunk * kHeadRowsChunk; index < std::min(rows, (chunk + 1) * kHeadRowsChunk); ++index) {
        auto row = row_of<T, Real>(args.forward, index, scratch);
        row.grad_output = grad_output + index * width;
        row.weight_sums = sums;
        run(row);
      }
    }
  });
  if (partial == nullptr) return;
  std::vector<double> totals(static_cast<size_t>(width));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t j = 0; j < width; ++j) totals[j] += static_cast<double>(partial[chunk * width + j]);
  }
  std::transform(totals.begin(), totals.end(), args.grad_weight.mutable_data_ptr<Real>(),
                 [](double total) { return static_cast<Real>(total); });
}

}  // namespace

void rms_norm_rotary_cpu(const RmsNormRotaryArgs& args) {
  for_float_type(args.states.scalar_type(),
                 [&](auto element, auto real) { forward<decltype(element), decltype(real)>(args); });
}

void rms_norm_rotary_backward_cpu(const RmsNormRotaryGradArgs& args) {
  for_float_type(args.forward.states.scalar_type(),
                 [&](auto element, auto real) { backward<decltype(element), decltype(real)>(args); });
}

}  // namespace prefusion::kernels::detail
