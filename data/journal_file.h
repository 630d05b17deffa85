#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>

namespace prefusion::data {

// A file whose committed part only changes in one atomic step; the storage below JournaledHdf5.
class JournalFile {
 public:
  // Opens (or makes) the file, locks it, and applies a journal that stands beside it. Run error when it is locked by
  // another process or cannot be opened.
  JournalFile(std::filesystem::path path, bool is_writable);
  ~JournalFile();
  JournalFile(const JournalFile&) = delete;
  JournalFile& operator=(const JournalFile&) = delete;

  uint64_t size() const { return size_; }
  // Sets the size; a smaller one takes effect on disk with commit().
  void resize(uint64_t size);
  // Bytes past the end read as zero. Run error when the disk fails.
  void read(uint64_t offset, void* out, size_t count) const;
  void write(uint64_t offset, const void* data, size_t count);
  void commit();
  // Everything after `size` counts as uncommitted: what a killed run left behind the end.
  void forget_tail(uint64_t size);

 private:
  static constexpr size_t kPageBytes = 4096;
  using Page = std::array<char, kPageBytes>;

  Page& page(uint64_t number);
  void read_disk(uint64_t offset, void* out, size_t count) const;
  void write_disk(uint64_t offset, const void* data, size_t count);
  void refresh_last_page();
  void write_journal() const;
  void apply_journal();
  std::filesystem::path journal_path() const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  bool is_writable_;
  uint64_t size_ = 0;
  uint64_t committed_size_ = 0;
  std::map<uint64_t, Page> changed_;  // pages of the committed part
};

}  // namespace prefusion::data
