#include "kernels/device_graph.h"

#include <utility>

#include "core/error.h"

namespace prefusion::kernels {
namespace {

class RepeatedCall : public DeviceGraph {
 public:
  explicit RepeatedCall(std::function<void()> work) : work_(std::move(work)) { work_(); }
  void replay() override { work_(); }

 private:
  std::function<void()> work_;
};

}  // namespace

std::shared_ptr<GraphMemory> make_graph_memory(at::Device device) {
#ifdef PREFUSION_HAS_CUDA
  if (device.is_cuda()) return detail::make_graph_memory_cuda(device);
#endif
  return std::make_shared<GraphMemory>();
}

std::unique_ptr<DeviceGraph> record_graph(at::Device device, std::function<void()> work,
                                          std::shared_ptr<GraphMemory> memory) {
  if (device.is_cuda()) {
#ifdef PREFUSION_HAS_CUDA
    return detail::record_graph_cuda(device, work, memory);
#else
    fail_run("CUDA graphs: prefusion was built without CUDA; build it where nvcc is");
#endif
  }
  return std::make_unique<RepeatedCall>(std::move(work));
}

}  // namespace prefusion::kernels
