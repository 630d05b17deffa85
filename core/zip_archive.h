#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"

namespace prefusion {

// A zip file (with its 64-bit extension), memory-mapped. The directory is checked before anything is read: every entry
// lies inside the file, agrees with the header in front of its data, and overlaps no other.
class ZipArchive {
 public:
  struct Entry {
    bool is_deflated = false;
    uint32_t crc = 0;
    size_t stored_size = 0;  // bytes in the file
    size_t size = 0;         // bytes once inflated
    size_t begin = 0;        // of the data in the file
  };

  // Input error, naming `where`, when the file is no zip file or violates the format.
  ZipArchive(std::shared_ptr<MappedFile> file, std::string where);

  const std::map<std::string, Entry>& entries() const { return entries_; }
  const Entry* find(const std::string& name) const;

  // The bytes of an entry that is stored as it is, inside the mapping.
  std::string_view stored(const Entry& entry) const { return file_->bytes().substr(entry.begin, entry.size); }

  // Writes entry.size bytes to `output`. Input error when the data does not inflate to exactly that.
  void inflate(const Entry& entry, char* output) const;

  // A copy of an entry's bytes, however it is kept. Input error when it is larger than `max_bytes`.
  std::string read(const Entry& entry, size_t max_bytes) const;

  const std::shared_ptr<MappedFile>& file() const { return file_; }

 private:
  struct Directory;
  Directory find_directory() const;
  void read_directory(const Directory& directory);
  void locate_data(const std::string& name, size_t header, Entry& entry) const;
  void check_overlaps(size_t directory_begin) const;

  std::shared_ptr<MappedFile> file_;
  std::string where_;
  std::map<std::string, Entry> entries_;
};

}  // namespace prefusion
