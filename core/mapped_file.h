#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string_view>

namespace prefusion {

// A regular file's bytes in memory, shared with the page cache. Tensors made of it hold the shared_ptr.
class MappedFile {
 public:
  // Input error when the path cannot be opened, is no regular file, or cannot be mapped.
  static std::shared_ptr<MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Writable, but private: what is written changes this process's own pages, never the file.
  char* data() const { return data_; }
  size_t size() const { return size_; }
  std::string_view bytes() const { return {data_, size_}; }

  // Takes the whole pages of [begin, begin + size) out of this process's resident memory, if they lie in a file mapped
  // here; whether they do. They stay in the page cache and come back when they are read. What was written to them is
  // lost, so this is for bytes that nobody writes.
  static bool evict(const void* begin, size_t size);

 private:
  MappedFile() = default;

  char* data_ = nullptr;  // null for an empty file
  size_t size_ = 0;
};

}  // namespace prefusion
