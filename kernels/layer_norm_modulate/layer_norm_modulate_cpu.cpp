#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/layer_norm_modulate/layer_norm_modulate.h"
#include "kernels/layer_norm_modulate/modulate_row_cpu.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

constexpr int64_t kGrain = 16384;  // elements that are worth a thread
template <typename T, typename Real>
void forward(const LayerNormModulateArgs& args) {
  const int64_t num_rows = args.input.size(1), width = args.input.size(2);
  const T* input = args.input.const_data_ptr<T>();
  const T *scale = args.scale.const_data_ptr<T>(), *shift = args.shift.const_data_ptr<T>();
  T* output = args.output.mutable_data_ptr<T>();
  Real *mean = args.mean.mutable_data_ptr<Real>(), *rstd = args.rstd.mutable_data_ptr<Real>();
  const int64_t scale_stride = args.scale.stride(0), shift_stride = args.shift.stride(0);
  const auto run = Forward<T, Real>::best();
  const int64_t grain = std::max<int64_t>(1, kGrain / width);
  parallel_for(args.input.size(0) * num_rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<Real> row(static_cast<size_t>(width));
    for (int64_t index = begin; index < end; ++index) {
      const int64_t item = index / num_rows;
      run({.input = input + index * width,
           .scale = scale + item * scale_stride,
           .shift = shift + item * shift_stride,
           .output = output + index * width,
           .row = row.data(),
           .width = width,
           .eps = static_cast<Real>(args.eps),
           .mean = mean + index,
           .rstd = rstd + index});
    }
  });
}

// totals[item, j] = sum over chunks of partial[item, chunk, which, j], in order.
template <typename Real>
void add_chunks(const at::Tensor& partial_tensor, int64_t which, const at::Tensor& totals_tensor) {
  const int64_t chunks = partial_tensor.size(1), width = partial_tensor.size(3);
  Real* totals = totals_tensor.mutable_data_ptr<Real>();
  for (int64_t item = 0; item < partial_tensor.size(0); ++item) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const Real* part = partial_tensor.const_data_ptr<Real>() + ((item * chunks + chunk) * 2 + which) * width;
      for (int64_t j = 0; j < width; ++j) totals[item * width + j] += part[j];
    }
  }
}

template <typename T, typename Real>
void backward(const LayerNormModulateGradArgs& args) {
  const at::Tensor& input_tensor = args.forward.input;
  const int64_t num_rows = input_tensor.size(1), width = input_tensor.size(2);
  const int64_t chunks = (num_rows + kModulateChunk - 1) / kModulateChunk;
  const T* input = input_tensor.const_data_ptr<T>();
  const T* scale = args.forward.scale.const_data_ptr<T>();
  const T* grad_output = args.grad_output.const_data_ptr<T>();
  T* grad_input = args.grad_input.mutable_data_ptr<T>();
  const Real* mean = args.forward.mean.const_data_ptr<Real>();
  const Real* rstd = args.forward.rstd.const_data_ptr<Real>();
  Real* partial = args.partial.defined() ? args.partial.mutable_data_ptr<Real>() : nullptr;
  const int64_t scale_stride = args.forward.scale.stride(0);
  const auto run = Backward<T, Real>::best();
  const int64_t grain = std::max<int64_t>(1, kGrain / (width * std::min(kModulateChunk, num_rows)));
  parallel_for(input_tensor.size(0) * chunks, grain, [&](int64_t begin, int64_t end) {
    std::vector<Real> normed(static_cast<size_t>(width)), grad(static_cast<size_t>(width));
    for (int64_t index = begin; index < end; ++index) {
      const int64_t item = index / chunks, first = index % chunks * kModulateChunk;
      Real* sums = partial == nullptr ? nullptr : partial + index * 2 * width;
      if (sums != nullptr) std::fill_n(sums, 2 * width, Real{0});
      for (int64_t n = first; n < std::min(num_rows, first + kModulateChunk); ++n) {
        const int64_t row = item * num_rows + n;
        run({.input = input + row * width,
             .scale = scale + item * scale_stride,
             .grad_output = grad_output + row * width,
             .grad_input = grad_input + row * width,
             .normed = normed.data(),
             .grad = grad.data(),
             .of_scale = sums,
             .of_shift = sums == nullptr ? nullptr : sums + width,
             .width = width,
             .mean = mean[row],
             .rstd = rstd[row]});
      }
    }
  });
  if (partial == nullptr) return;
  add_chunks<Real>(args.partial, 0, args.grad_scale);
  add_chunks<Real>(args.partial, 1, args.grad_shift);
}

}  // namespace

void layer_norm_modulate_cpu(const LayerNormModulateArgs& args) {
  for_float_type(args.input.scalar_type(),
                 [&](auto element, auto real) { forward<decltype(element), decltype(real)>(args); });
}

void layer_norm_modulate_backward_cpu(const LayerNormModulateGradArgs& args) {
  for_float_type(args.forward.input.scalar_type(),
                 [&](auto element, auto real) { backward<decltype(element), decltype(real)>(args); });
}

}  // namespace prefusion::kernels::detail
