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

// Memory of graphs that take turns: what one of them uses while it works, the next may use as well. Only tensors that
// their works made and somebody holds are each graph's own.
class GraphMemory {
 public:
  GraphMemory() = default;
  virtual ~GraphMemory() = default;
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;
};
std::shared_ptr<GraphMemory> make_graph_memory(at::Device device);

// Records `work`, which must launch the same on every call: nothing in it may wait for the device, depend on values
// there or copy from host memory. It is run once before it is recorded, since libraries set themselves up in a first
// run. Recording does nothing but allocate: results are there after replay(), in the tensors that `work` made while it
// was recorded, which are kept in `memory`. c10::Error where it does something that cannot be recorded. On the CPU a
// replay calls `work`.
std::unique_ptr<DeviceGraph> record_graph(at::Device device, std::function<void()> work,
                                          std::shared_ptr<GraphMemory> memory);

namespace detail {
std::shared_ptr<GraphMemory> make_graph_memory_cuda(at::Device device);
std::unique_ptr<DeviceGraph> record_graph_cuda(at::Device device, const std::function<void()>& work,
                                               const std::shared_ptr<GraphMemory>& memory);
}  // namespace detail

}  // namespace prefusion::kernels
