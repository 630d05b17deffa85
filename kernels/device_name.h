#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace prefusion::kernels {

// "NVIDIA H200"; "cpu" for the CPU.
std::string device_name(at::Device device);

// Dense matrix products a device can make in a second by its maker's data sheet, in operations; 0 where it is not known
// (the CPU, dtypes other than bf16 and fp16, other devices).
double peak_flops(const std::string& device_name, at::ScalarType dtype);

namespace detail {
std::string device_name_cuda(at::Device device);
}

}  // namespace prefusion::kernels
