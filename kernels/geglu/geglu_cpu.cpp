#include <ATen/ATen.h>

#include <algorithm>

#include "kernels/cpu_vector.h"
#include "kernels/dispatch.h"
#include "kernels/geglu/geglu.h"
#include "kernels/geglu/geglu_math.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

constexpr int64_t kSpan = 4096;    // elements that are computed at a time
constexpr int64_t kGrain = 16384;  // and that are worth a thread

// Elements of one row: values, gates, and the output or its gradient. `Real` is what they are computed in.
template <typename T, typename Real>
PREFUSION_INLINE void forward_span(const T* __restrict__ value, const T* __restrict__ gate, T* __restrict__ output,
                                   int64_t count) {
  for (int64_t j = 0; j < count; ++j) {
    output[j] = static_cast<T>(gated_gelu(static_cast<Real>(value[j]), static_cast<Real>(gate[j])));
  }
}

template <typename T, typename Real>
PREFUSION_INLINE void backward_span(const T* __restrict__ value, const T* __restrict__ gate,
                                    const T* __restrict__ grad_output, T* __restrict__ grad_value,
                                    T* __restrict__ grad_gate, int64_t count) {
  for (int64_t j = 0; j < count; ++j) {
    const GatedGeluGradient<Real> gradient =
        gated_gelu_gradient(static_cast<Real>(value[j]), static_cast<Real>(gate[j]), static_cast<Real>(grad_output[j]));
    grad_value[j] = static_cast<T>(gradient.value);
    grad_gate[j] = static_cast<T>(gradient.gate);
  }
}

template <typename T, typename Real>
struct ForwardSpan {
  static void plain(const T* value, const T* gate, T* output, int64_t count) {
    forward_span<T, Real>(value, gate, output, count);
  }
  PREFUSION_AVX2 static void avx2(const T* value, const T* gate, T* output, int64_t count) {
    forward_span<T, Real>(value, gate, output, count);
  }
  PREFUSION_AVX512 static void avx512(const T* value, const T* gate, T* output, int64_t count) {
    forward_span<T, Real>(value, gate, output, count);
  }
};

template <typename T, typename Real>
struct BackwardSpan {
  static void plain(const T* value, const T* gate, const T* grad, T* grad_value, T* grad_gate, int64_t count) {
    backward_span<T, Real>(value, gate, grad, grad_value, grad_gate, count);
  }
  PREFUSION_AVX2 static void avx2(const T* value, const T* gate, const T* grad, T* grad_value, T* grad_gate,
                                  int64_t count) {
    backward_span<T, Real>(value, gate, grad, grad_value, grad_gate, count);
  }
  PREFUSION_AVX512 static void avx512(const T* value, const T* gate, const T* grad, T* grad_value, T* grad_gate,
                                      int64_t count) {
    backward_span<T, Real>(value, gate, grad, grad_value, grad_gate, count);
  }
};

// Calls span(row, first column, count) for the parts of rows that make up all rows * width elements. Where rows are cut
// does not depend on the number of threads: the last elements of a part may be rounded in another way than vectors are.
template <typename Span>
void for_spans(int64_t rows, int64_t width, const Span& span) {
  const int64_t per_row = (width + kSpan - 1) / kSpan;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::min(width, kSpan));
  parallel_for(rows * per_row, grain, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t column = index % per_row * kSpan;
      span(index / per_row, column, std::min(kSpan, width - column));
    }
  });
}

template <typename T, typename Real>
void forward(const at::Tensor& input_tensor, at::Tensor& output_tensor) {
  using Span = ForwardSpan<T, Real>;
  const T* input = input_tensor.const_data_ptr<T>();
  T* output = output_tensor.mutable_data_ptr<T>();
  const int64_t width = output_tensor.size(-1);
  const auto run = fastest(Span::plain, Span::avx2, Span::avx512);
  for_spans(output_tensor.numel() / width, width, [=](int64_t row, int64_t column, int64_t count) {
    const T* value = input + 2 * row * width + column;
    run(value, value + width, output + row * width + column, count);
  });
}

template <typename T, typename Real>
void backward(const at::Tensor& input_tensor, const at::Tensor& grad_output_tensor, at::Tensor& grad_input_tensor) {
  using Span = BackwardSpan<T, Real>;
  const T* input = input_tensor.const_data_ptr<T>();
  const T* grad_output = grad_output_tensor.const_data_ptr<T>();
  T* grad_input = grad_input_tensor.mutable_data_ptr<T>();
  const int64_t width = grad_output_tensor.size(-1);
  const auto run = fastest(Span::plain, Span::avx2, Span::avx512);
  for_spans(grad_output_tensor.numel() / width, width, [=](int64_t row, int64_t column, int64_t count) {
    const int64_t first = 2 * row * width + column;
    run(input + first, input + first + width, grad_output + row * width + column, grad_input + first,
        grad_input + first + width, count);
  });
}

}  // namespace

void geglu_cpu(const at::Tensor& input, at::Tensor& output) {
  for_float_type(input.scalar_type(),
                 [&](auto element, auto real) { forward<decltype(element), decltype(real)>(input, output); });
}

void geglu_backward_cpu(const at::Tensor& input, const at::Tensor& grad_output, at::Tensor& grad_input) {
  for_float_type(input.scalar_type(), [&](auto element, auto real) {
    backward<decltype(element), decltype(real)>(input, grad_output, grad_input);
  });
}

}  // namespace prefusion::kernels::detail
