#include "kernels/device_name.h"

#include <string_view>
#include <utility>

namespace prefusion::kernels {
namespace {

// NVIDIA's data sheets, tensor cores in bf16 and fp16 with fp32 sums, without sparsity. The first name that is part of
// the device's counts.
constexpr std::pair<std::string_view, double> kPeaks[] = {
    {"B200", 2250e12}, {"GH200", 989e12},     {"H200", 989e12},     {"H100 PCIe", 756e12},
    {"H100", 989e12},  {"A100", 312e12},      {"A800", 312e12},     {"L40S", 362e12},
    {"L40", 181e12},   {"L4", 121e12},        {"A10", 125e12},      {"A30", 165e12},
    {"A40", 150e12},   {"RTX A6000", 155e12}, {"RTX 4090", 165e12}, {"RTX 3090", 71e12},
};

}  // namespace

std::string device_name(at::Device device) {
#ifdef PREFUSION_HAS_CUDA
  if (device.is_cuda()) return detail::device_name_cuda(device);
#endif
  return device.str();
}

double peak_flops(const std::string& device_name, at::ScalarType dtype) {
  if (dtype != at::kBFloat16 && dtype != at::kHalf) return 0;
  for (const auto& [name, peak] : kPeaks) {
    if (device_name.find(name) != std::string::npos) return peak;
  }
  return 0;
}

}  // namespace prefusion::kernels
