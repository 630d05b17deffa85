#include "core/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"

namespace prefusion {
namespace {

namespace fs = std::filesystem;
using tests::error_message;
using tests::mentions;
using tests::TempDir;

size_t count_files(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// Lets every write beyond `bytes` of a file fail, as a full disk would, while it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limited = before_;
    limited.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limited);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST(AtomicFile, AppearsOnlyAtCommit) {
  const TempDir folder;
  AtomicFile file(folder / "out.txt");
  file.write("hello");
  EXPECT_FALSE(fs::exists(folder / "out.txt"));
  file.commit();
  EXPECT_EQ(read_file(folder / "out.txt"), "hello");
  EXPECT_EQ(count_files(folder.path()), 1u);
}

TEST(AtomicFile, ReplacesAnOlderFile) {
  const TempDir folder;
  write_file(folder / "out.txt", "old and long");
  write_file(folder / "out.txt", "new");
  EXPECT_EQ(read_file(folder / "out.txt"), "new");
}

TEST(AtomicFile, LeavesTheOldFileWhenAbandoned) {
  const TempDir folder;
  write_file(folder / "out.txt", "old");
  {
    AtomicFile file(folder / "out.txt");
    file.write("new");
  }
  EXPECT_EQ(read_file(folder / "out.txt"), "old");
  EXPECT_EQ(count_files(folder.path()), 1u);
}

TEST(AtomicFile, LeavesTheOldFileWhenTheDiskIsFull) {
  const TempDir folder;
  write_file(folder / "out.txt", "old");
  std::string message;
  {
    const FileSizeLimit limit(4096);
    message = error_message(ErrorClass::kRun, [&] { write_file(folder / "out.txt", std::string(100000, 'x')); });
  }
  EXPECT_TRUE(mentions(message, "out.txt"));
  EXPECT_EQ(read_file(folder / "out.txt"), "old");
  EXPECT_EQ(count_files(folder.path()), 1u);
}

TEST(AtomicFile, FailsWithThePathWhereItCannotWrite) {
  const TempDir folder;
  EXPECT_TRUE(mentions(error_message(ErrorClass::kRun, [&] { write_file(folder / "no/such/out.txt", "x"); }),
                       "no/such/out.txt"));
  make_folder(folder / "taken" / "inner");
  error_message(ErrorClass::kRun, [&] { write_file(folder / "taken", "x"); });
  EXPECT_EQ(count_files(folder.path()), 1u);
}

TEST(ReadFile, ReadsWholeFilesAndRefusesMissingFoldersAndLargeOnes) {
  const TempDir folder;
  const std::string bytes("a\0b\n", 4);
  write_file(folder / "in.bin", bytes);
  EXPECT_EQ(read_file(folder / "in.bin"), bytes);
  write_file(folder / "empty", "");
  EXPECT_EQ(read_file(folder / "empty"), "");
  error_message(ErrorClass::kInput, [&] { read_file(folder / "missing"); });
  error_message(ErrorClass::kInput, [&] { read_file(folder.path()); });
  error_message(ErrorClass::kInput, [&] { read_file(folder / "in.bin", 3); });
}

TEST(MakeFolder, MakesParentsAndRefusesAFileInTheWay) {
  const TempDir folder;
  make_folder(folder / "a" / "b");
  make_folder(folder / "a" / "b");
  EXPECT_TRUE(fs::is_directory(folder / "a" / "b"));
  write_file(folder / "file", "x");
  error_message(ErrorClass::kRun, [&] { make_folder(folder / "file"); });
  error_message(ErrorClass::kRun, [&] { make_folder(folder / "file" / "below"); });
}

}  // namespace
}  // namespace prefusion
