#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <atomic>

#include "kernels/device_graph.h"

namespace prefusion::kernels::detail {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

// Memory that stays with a graph, whose launches have its addresses written into them.
class GraphMemory {
 public:
  explicit GraphMemory(c10::DeviceIndex device) : device_(device), id_{0, next_number()} {}
  ~GraphMemory() {
    if (is_used_) allocator::releasePool(device_, id_);
  }
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;

  // What is allocated on `stream` from here to end() comes from this memory.
  void begin(cudaStream_t stream) {
    allocator::beginAllocateToPool(device_, id_, [stream](cudaStream_t of) { return of == stream; });
    is_used_ = true;
  }
  void end() { allocator::endAllocateToPool(device_, id_); }

 private:
  // The allocator's users number their pools from one.
  static c10::cuda::CaptureId_t next_number() {
    static std::atomic<c10::cuda::CaptureId_t> last{c10::cuda::CaptureId_t{1} << 40};
    return ++last;
  }

  c10::DeviceIndex device_;
  c10::cuda::MempoolId_t id_;
  bool is_used_ = false;
};

class CudaGraph : public DeviceGraph {
 public:
  explicit CudaGraph(c10::DeviceIndex device) : device_(device), memory_(device) {}
  ~CudaGraph() override {
    const c10::cuda::CUDAGuard guard(device_);
    C10_CUDA_CHECK_WARN(cudaDeviceSynchronize());  // a replay may be under way
    if (executable_) C10_CUDA_CHECK_WARN(cudaGraphExecDestroy(executable_));
    if (graph_) C10_CUDA_CHECK_WARN(cudaGraphDestroy(graph_));
  }

  void replay() override {
    const c10::cuda::CUDAGuard guard(device_);
    C10_CUDA_CHECK(cudaGraphLaunch(executable_, c10::cuda::getCurrentCUDAStream(device_)));
  }

  // On the current stream, which must not be the default one.
  void record(const std::function<void()>& work) {
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream(device_);
    memory_.begin(stream);
    try {
      // Other threads may go on using the device.
      C10_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      work();
      C10_CUDA_CHECK(cudaStreamEndCapture(stream, &graph_));
    } catch (...) {
      abandon(stream);
      throw;
    }
    memory_.end();
    C10_CUDA_CHECK(cudaGraphInstantiate(&executable_, graph_, 0));
  }

 private:
  // After a failure: the stream records no longer, and the error that says so is forgotten.
  void abandon(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    if (cudaStreamIsCapturing(stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone) {
      cudaStreamEndCapture(stream, &graph_);
    }
    (void)cudaGetLastError();
    memory_.end();
  }

  c10::DeviceIndex device_;
  GraphMemory memory_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

std::unique_ptr<DeviceGraph> record_graph_cuda(at::Device device, const std::function<void()>& work) {
  const c10::cuda::CUDAGuard guard(device);
  // The default stream cannot be recorded.
  const auto stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index());
  auto graph = std::make_unique<CudaGraph>(device.index());
  C10_CUDA_CHECK(cudaDeviceSynchronize());
  const c10::cuda::CUDAStreamGuard on_stream(stream);
  work();
  C10_CUDA_CHECK(cudaDeviceSynchronize());
  allocator::emptyCache();  // what that run had is needed once more, in the graph's memory
  graph->record(work);
  return graph;
}

}  // namespace prefusion::kernels::detail
