#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda_launch.h"
#include "kernels/dispatch.h"
#include "kernels/guided_step/guided_step_args.h"

namespace prefusion::kernels::detail {
namespace {

template <int kSize, typename Packets>
__global__ void guided_step_kernel(Packets packets, int64_t count) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    packets.template compute<kSize>(i);
  }
}

template <int kSize, typename Packets>
void launch(const Packets& packets) {
  const int64_t count = packets.count / kSize;
  guided_step_kernel<kSize><<<grid_size(count), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(packets, count);
  check_launch("guided_step");
}

}  // namespace

void guided_step_cuda(GuidedStepTensors& tensors) {
  const c10::cuda::CUDAGuard device(tensors.both.device());
  for_float_type(tensors.both.scalar_type(), [&](auto element, auto real) {
    using T = decltype(element);
    const auto packets = packets_of<T, decltype(real)>(tensors);
    const int64_t count = packets.count;  // of a half, which begins at a packet then, too
    const bool takes = takes_packets(packets.both, count) && takes_packets(packets.sample, count) &&
                       takes_packets(packets.guided, count) && takes_packets(packets.next, count);
    takes ? launch<kPacketSize<T>>(packets) : launch<1>(packets);
  });
}

}  // namespace prefusion::kernels::detail
