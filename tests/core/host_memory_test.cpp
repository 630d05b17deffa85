#include "core/host_memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

namespace prefusion {
namespace {

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PREFUSION_OTHER_MALLOC
#endif
#endif
#if !defined(__GLIBC__) || defined(__SANITIZE_ADDRESS__) || defined(PREFUSION_OTHER_MALLOC)
constexpr bool kIsGlibcsMalloc = false;
#else
constexpr bool kIsGlibcsMalloc = true;
#endif

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
  if (!kIsGlibcsMalloc) GTEST_SKIP() << "the allocator is not glibc's, whose settings these are";
  const int64_t pages = kLarge / static_cast<size_t>(sysconf(_SC_PAGESIZE));
  keep_freed_memory();
  faults_of_large_block();
  EXPECT_LT(faults_of_large_block(), pages / 100);
  const size_t kept = resident_bytes();
  release_freed_memory();
  EXPECT_LT(resident_bytes() + kLarge / 2, kept);
}

}  // namespace
}  // namespace prefusion
