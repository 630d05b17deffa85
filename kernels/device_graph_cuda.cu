#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <utility>

#include "kernels/device_graph.h"

namespace prefusion::kernels::detail {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

// Memory whose addresses are written into the launches of graphs.
class CudaGraphMemory : public GraphMemory {
 public:
  explicit CudaGraphMemory(c10::DeviceIndex device)
      : device_(device),
        id_{0, next_number()},
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device)) {}
  ~CudaGraphMemory() override {
    for (int i = 0; i < num_uses_; ++i) allocator::releasePool(device_, id_);
  }

  // Where its graphs are recorded: the allocator gives a block again to the stream it was freed on, and no other. (The
  // default stream cannot be recorded.)
  const c10::cuda::CUDAStream& stream() const { return stream_; }

  // What is allocated on the stream from here to end() comes from this memory.
  void begin() {
    const cudaStream_t stream = stream_;
    allocator::beginAllocateToPool(device_, id_, [stream](cudaStream_t of) { return of == stream; });
    ++num_uses_;
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
  c10::cuda::CUDAStream stream_;
  int num_uses_ = 0;  // the allocator counts them
};

class CudaGraph : public DeviceGraph {
 public:
  CudaGraph(c10::DeviceIndex device, std::shared_ptr<CudaGraphMemory> memory)
      : device_(device), memory_(std::move(memory)) {}
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

  // On the memory's stream, which must be the current one.
  void record(const std::function<void()>& work) {
    const cudaStream_t stream = memory_->stream();
    memory_->begin();
    try {
      // Other threads may go on using the device.
      C10_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      work();
      C10_CUDA_CHECK(cudaStreamEndCapture(stream, &graph_));
    } catch (...) {
      abandon(stream);
      throw;
    }
    memory_->end();
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
    memory_->end();
  }

  c10::DeviceIndex device_;
  std::shared_ptr<CudaGraphMemory> memory_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

std::shared_ptr<GraphMemory> make_graph_memory_cuda(at::Device device) {
  return std::make_shared<CudaGraphMemory>(device.index());
}

std::unique_ptr<DeviceGraph> record_graph_cuda(at::Device device, const std::function<void()>& work,
                                               const std::shared_ptr<GraphMemory>& memory) {
  const c10::cuda::CUDAGuard guard(device);
  const auto own = std::dynamic_pointer_cast<CudaGraphMemory>(memory);
  auto graph = std::make_unique<CudaGraph>(device.index(), own);
  C10_CUDA_CHECK(cudaDeviceSynchronize());
  const c10::cuda::CUDAStreamGuard on_stream(own->stream());
  work();
  C10_CUDA_CHECK(cudaDeviceSynchronize());
  allocator::emptyCache();  // what that run had is needed once more, in the graph's memory
  graph->record(work);
  return graph;
}

}  // namespace prefusion::kernels::detail
