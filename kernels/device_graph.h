#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace prefusion::kernels {

// Work that a GPU is given as one: its launches were recorded and cost the host one launch however many they are
// ("CUDA Graphs" of the CUDA C++ Programming Guide).
class DeviceGraph {
 public:
  DeviceGraph() = default;
  virtual ~DeviceGraph() = default;
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  // Does the work again on the current stream: the same launches on the same memory.
  virtual void replay() = 0;
};

// Records `work`, which must launch the same on every call: nothing in it may wait for the device, depend on values
// there or copy from host memory. It is run once before it is recorded, since libraries set themselves up in a first
// run. Recording does nothing but allocate: results are there after replay(), in the tensors that `work` made while it
// was recorded, whose memory is the graph's own. c10::Error where it does something that cannot be recorded. On the CPU
// a replay calls `work`.
std::unique_ptr<DeviceGraph> record_graph(at::Device device, std::function<void()> work);

namespace detail {
std::unique_ptr<DeviceGraph> record_graph_cuda(at::Device device, const std::function<void()>& work);
}

}  // namespace prefusion::kernels
