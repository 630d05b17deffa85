#include "core/peak_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <sys/resource.h>

#include <fstream>
#include <string>

#include "core/device.h"
#include "core/host_memory.h"

namespace prefusion {
namespace {

c10::DeviceAllocator* cuda_allocator() {
  return dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(at::kCUDA));
}

// Of this program alone; 0 where it is not told. The largest resident size that getrusage() gives counts the process
// that started it as well.
size_t resident_peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}

}  // namespace

size_t peak_memory_bytes(at::Device device) {
  if (auto* allocator = device.is_cuda() ? cuda_allocator() : nullptr) {
    return static_cast<size_t>(allocator->getDeviceStats(device.index()).allocated_bytes[0].peak);
  }
  if (const size_t bytes = resident_peak_bytes(); bytes > 0) return bytes;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

void reset_peak_memory(at::Device device) {
  if (auto* allocator = device.is_cuda() ? cuda_allocator() : nullptr) {
    allocator->resetPeakStats(device.index());
    return;
  }
  release_freed_memory();
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace prefusion
