#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>

#include "kernels/device_name.h"

namespace prefusion::kernels::detail {

std::string device_name_cuda(at::Device device) {
  cudaDeviceProp properties{};
  C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index()));
  return properties.name;
}

}  // namespace prefusion::kernels::detail
