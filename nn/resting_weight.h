#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>

#include "nn/weight_stream.h"

namespace prefusion::nn {

// A weight that is not trained, as it is kept while its layer is not at work: in bytes under a scale, in host memory,
// or both. Whoever makes one: nn/frozen_weights.h.
struct RestingWeight {
  at::Tensor stored;                     // of the weight's shape
  at::Tensor scale;                      // [out] fp32: stored * scale is the weight; undefined: stored is
  std::shared_ptr<WeightStream> stream;  // what brings `stored` to the device; null: it is there
  size_t number = 0;                     // its number in the stream
  at::ScalarType dtype = at::kFloat;     // that of the weight before it was put aside: what its network computes in

  // The weight on the device, in a dtype of choice.
  at::Tensor value(at::ScalarType dtype) const;
};

// What layers with such weights compute, in the dtype of the activations. Gradients reach the input alone; the weight
// is made once more for them, so that nothing of it is kept between the passes.
at::Tensor resting_linear(const at::Tensor& input, const std::shared_ptr<const RestingWeight>& weight,
                          const at::Tensor& bias);
at::Tensor resting_conv2d(const at::Tensor& input, const std::shared_ptr<const RestingWeight>& weight,
                          const at::Tensor& bias, int64_t stride, int64_t padding);

}  // namespace prefusion::nn
