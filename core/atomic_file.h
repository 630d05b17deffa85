#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace prefusion {

// A file that appears whole or not at all: written beside its destination, fsynced, renamed by commit().
// Destroyed without commit() it leaves nothing behind. Run error on a full disk or an unwritable folder.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path destination);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

  // Where the bytes go until commit(), for libraries that want to open the path themselves.
  const std::filesystem::path& temporary_path() const { return temporary_; }

 private:
  std::filesystem::path destination_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

// Writes `text` to `path` atomically.
void write_file(const std::filesystem::path& path, std::string_view text);

// The whole file as bytes. Input error when it cannot be read or is larger than `max_bytes`.
std::string read_file(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 32);

// Makes a folder and its parents. Run error when it cannot be made.
void make_folder(const std::filesystem::path& path);

// Makes the entries of a folder durable (after a rename inside it).
void sync_folder(const std::filesystem::path& folder);

}  // namespace prefusion
