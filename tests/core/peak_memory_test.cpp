#include "core/peak_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <fstream>

#include "core/device.h"

namespace prefusion {
namespace {

constexpr size_t kLarge = size_t{256} << 20;

// Past malloc, which may keep what is freed.
void touch_large_memory() {
  void* bytes = mmap(nullptr, kLarge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(bytes, MAP_FAILED);
  std::memset(bytes, 1, kLarge);
  munmap(bytes, kLarge);
}

TEST(PeakMemory, IsForgottenWhereTheKernelLetsAProcessForgetIt) {
  touch_large_memory();
  const size_t before = peak_memory_bytes(at::kCPU);
  EXPECT_GT(before, kLarge);
  reset_peak_memory(at::kCPU);
  const size_t after = peak_memory_bytes(at::kCPU);
  if (!std::ofstream("/proc/self/clear_refs")) {
    EXPECT_GE(after, before);
    return;
  }
  EXPECT_LT(after, before - kLarge / 2);
  touch_large_memory();
  EXPECT_GT(peak_memory_bytes(at::kCPU), after + kLarge / 2);
}

}  // namespace
}  // namespace prefusion
