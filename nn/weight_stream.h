#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <map>
#include <optional>
#include <vector>

#include "nn/use_order.h"

namespace prefusion::nn {

// Brings weights from host memory to the device that computes. On a GPU copies run beside the computation, on a stream
// of their own, and those of the weights that came next the last time are on their way before they are asked for; the
// device holds the weight at work and `kAhead` more. On the CPU weights are where they are needed.
class WeightStream {
 public:
  explicit WeightStream(at::Device device);

  // `stored` is in host memory; on a GPU it should be pinned, else copies wait. Returns its number.
  size_t add(const at::Tensor& stored);

  // The weight on the device, in the dtype it is stored in.
  at::Tensor fetch(size_t number);

  at::Device device() const { return device_; }

 private:
  struct Copy {
    at::Tensor tensor;
    c10::Event arrived;
  };
  static constexpr size_t kAhead = 3;

  Copy start_copy(size_t number);
  at::Tensor wait_for(Copy copy);
  void look_ahead();

  at::Device device_;
  std::vector<at::Tensor> stored_;
  std::optional<c10::Stream> copies_;
  UseOrder order_;
  std::map<size_t, Copy> underway_;
};

}  // namespace prefusion::nn
