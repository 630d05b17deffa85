#include "core/mapped_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace prefusion {
namespace {

using tests::TempDir;

constexpr size_t kSize = (size_t{16} << 20) + 100;

std::filesystem::path large_file(const TempDir& folder) {
  std::string bytes(kSize, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 % 251);
  std::ofstream(folder / "large", std::ios::binary) << bytes;
  return folder / "large";
}

size_t sum(const MappedFile& file) {
  return std::accumulate(file.bytes().begin(), file.bytes().end(), size_t{0},
                         [](size_t total, char byte) { return total + static_cast<unsigned char>(byte); });
}

size_t resident_bytes() {
  size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

TEST(MappedFile, EvictedPagesLeaveResidentMemoryAndComeBack) {
  const TempDir folder;
  const auto file = MappedFile::open(large_file(folder));
  const size_t expected = sum(*file);
  const size_t before = resident_bytes();
  EXPECT_TRUE(MappedFile::evict(file->data(), kSize));
  EXPECT_LT(resident_bytes() + (size_t{12} << 20), before);
  EXPECT_EQ(sum(*file), expected);
}

TEST(MappedFile, EvictsWholePagesAlone) {
  const TempDir folder;
  const auto file = MappedFile::open(large_file(folder));
  // Written bytes would be lost with their page: those beside an evicted range must not be.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  file->data()[page + 9] = 'x';
  file->data()[3 * page + 1] = 'y';
  EXPECT_TRUE(MappedFile::evict(file->data() + page + 10, 2 * page));
  EXPECT_EQ(file->data()[page + 9], 'x');
  EXPECT_EQ(file->data()[3 * page + 1], 'y');
}

TEST(MappedFile, LeavesMemoryThatIsNoFilesAlone) {
  const TempDir folder;
  std::vector<char> memory(kSize, 'z');
  EXPECT_FALSE(MappedFile::evict(memory.data(), kSize));
  const auto file = MappedFile::open(large_file(folder));
  EXPECT_FALSE(MappedFile::evict(memory.data(), kSize));
  EXPECT_FALSE(MappedFile::evict(file->data(), kSize + (size_t{1} << 20))) << "more than the file";
  EXPECT_EQ(memory.back(), 'z');
}

TEST(MappedFile, ForgetsFilesThatAreClosed) {
  const TempDir folder;
  auto file = MappedFile::open(large_file(folder));
  const char* begin = file->data();
  file.reset();
  EXPECT_FALSE(MappedFile::evict(begin, kSize));
}

}  // namespace
}  // namespace prefusion
