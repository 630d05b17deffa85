#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/item_error/item_error.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

// An item is cut into chunks of this size; each is summed by one thread in eight interleaved lanes, and the chunk sums
// are added in order. So the result is the same for any number of threads, and the lanes vectorise.
constexpr int64_t kChunk = 4096;
constexpr int kLanes = 8;

template <typename T, typename Acc>
double chunk_sum(const T* prediction, const Acc* target, int64_t count) {
  Acc lanes[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const Acc residual = static_cast<Acc>(prediction[j + lane]) - target[j + lane];
      lanes[lane] += residual * residual;
    }
  }
  for (; j < count; ++j) {
    const Acc residual = static_cast<Acc>(prediction[j]) - target[j];
    lanes[j % kLanes] += residual * residual;
  }
  double sum = 0;
  for (const Acc lane : lanes) sum += lane;
  return sum;
}

template <typename T, typename Acc>
void forward(const at::Tensor& prediction_tensor, const at::Tensor& target_tensor, at::Tensor& error_tensor,
             int64_t num_elements) {
  const T* prediction = prediction_tensor.const_data_ptr<T>();
  const Acc* target = target_tensor.const_data_ptr<Acc>();
  Acc* error = error_tensor.mutable_data_ptr<Acc>();
  const int64_t num_items = error_tensor.numel();
  const int64_t num_chunks = (num_elements + kChunk - 1) / kChunk;
  std::vector<double> sums(static_cast<size_t>(num_items * num_chunks));
  parallel_for(num_items * num_chunks, /*grain_size=*/4, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t first = index % num_chunks * kChunk;
      const int64_t offset = index / num_chunks * num_elements + first;
      sums[index] = chunk_sum(prediction + offset, target + offset, std::min(kChunk, num_elements - first));
    }
  });
  for (int64_t item = 0; item < num_items; ++item) {
    double sum = 0;
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) sum += sums[item * num_chunks + chunk];
    error[item] = static_cast<Acc>(sum / static_cast<double>(num_elements));
  }
}

template <typename T, typename Acc>
void backward(const at::Tensor& prediction_tensor, const at::Tensor& target_tensor, const at::Tensor& grad_error_tensor,
              at::Tensor& grad_prediction_tensor, int64_t num_elements) {
  const T* prediction = prediction_tensor.const_data_ptr<T>();
  const Acc* target = target_tensor.const_data_ptr<Acc>();
  const Acc* grad_error = grad_error_tensor.const_data_ptr<Acc>();
  T* grad_prediction = grad_prediction_tensor.mutable_data_ptr<T>();
  parallel_for(prediction_tensor.numel(), /*grain_size=*/16384, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end;) {
      const int64_t item = j / num_elements;
      const int64_t item_end = std::min(end, (item + 1) * num_elements);
      const Acc scale = grad_error[item] * (Acc{2} / static_cast<Acc>(num_elements));
      for (; j < item_end; ++j) {
        grad_prediction[j] = static_cast<T>(scale * (static_cast<Acc>(prediction[j]) - target[j]));
      }
    }
  });
}

}  // namespace

void item_error_cpu(const at::Tensor& prediction, const at::Tensor& target, at::Tensor& error, int64_t num_elements) {
  for_float_type(prediction.scalar_type(), [&](auto element, auto real) {
    forward<decltype(element), decltype(real)>(prediction, target, error, num_elements);
  });
}

void item_error_backward_cpu(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& grad_error,
                             at::Tensor& grad_prediction, int64_t num_elements) {
  for_float_type(prediction.scalar_type(), [&](auto element, auto real) {
    backward<decltype(element), decltype(real)>(prediction, target, grad_error, grad_prediction, num_elements);
  });
}

}  // namespace prefusion::kernels::detail
