#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace prefusion {

// "auto" (CUDA when there is a device, else CPU), "cpu", "cuda", "cuda:N". Usage error for anything else or a device
// that is not there.
at::Device parse_device(const std::string& name);

// "fp32", "bf16", "fp16"; usage error otherwise.
at::ScalarType parse_dtype(const std::string& name);
const char* dtype_name(at::ScalarType dtype);

// The tensor on that device. A GPU gets what lies in host memory through pinned memory, and nobody waits for it: the
// pinned copy stays until it has arrived.
at::Tensor to_device(const at::Tensor& tensor, at::Device device);

// Peak resident memory of this process so far, in bytes (CUDA: peak allocated bytes of the device).
size_t peak_memory_bytes(at::Device device);

}  // namespace prefusion
