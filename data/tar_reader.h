#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace prefusion::data {

// Regular files of a tar archive (ustar, GNU long names, pax paths and sizes) from front to back.
class TarReader {
 public:
  // Input error when the file cannot be opened.
  explicit TarReader(const std::filesystem::path& path);

  // Name of the next member; false at the end. Input error for a damaged or cut off archive.
  bool next(std::string& name);
  int64_t size() const { return size_; }  // of the member, in bytes
  // The bytes of the member, once. Input error when it is larger than `max_bytes` or the archive ends before it does.
  std::string read(int64_t max_bytes);

 private:
  bool read_header(char (&block)[512]);
  std::string read_body(int64_t size);
  void take_pax(const std::string& records);

  std::filesystem::path path_;
  std::ifstream file_;
  int64_t file_size_ = 0;
  int64_t next_header_ = 0;
  int64_t body_ = 0;
  int64_t size_ = 0;
  std::string long_name_;  // for the next member, from a GNU or pax record
  int64_t pax_size_ = -1;
};

}  // namespace prefusion::data
