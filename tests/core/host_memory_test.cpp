#include "core/host_memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

namespace prefusion {
namespace {

constexpr size_t kLarge = size_t{64} << 20;  // above the 32 MiB from which on glibc always maps anew

// Page faults that a large block costs from its making to its end.
int64_t faults_of_large_block() {
  const auto faults = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<int64_t>(usage.ru_minflt);
  };
  const int64_t before = faults();
  void* volatile block = std::malloc(kLarge);
  std::memset(block, 1, kLarge);
  std::free(block);
  return faults() - before;
}

size_t resident_bytes() {
  size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// One test: the setting is the whole process's and cannot be taken back.
TEST(HostMemory, KeepsFreedBlocksForTheNextUntilTheyAreReleased) {
  const int64_t pages = kLarge / static_cast<size_t>(sysconf(_SC_PAGESIZE));
  faults_of_large_block();
  const int64_t mapped_anew = faults_of_large_block();
  if (mapped_anew < pages / 2) GTEST_SKIP() << "this C library, or huge pages, keep faults away by themselves";
  keep_freed_memory();
  faults_of_large_block();
  EXPECT_LT(faults_of_large_block(), pages / 100);
  const size_t kept = resident_bytes();
  release_freed_memory();
  EXPECT_LT(resident_bytes() + kLarge / 2, kept);
}

}  // namespace
}  // namespace prefusion
