#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace prefusion::data {

// Records of a CSV file (RFC 4180: quoted fields may hold commas, line ends and doubled quotes), one at a time.
class CsvReader {
 public:
  // Input error when the file cannot be opened.
  explicit CsvReader(const std::filesystem::path& path);

  // The next record, blank lines left out; false at the end. A record that ends with the file instead of a line end is
  // given too. Input error for a quoted field that never ends or a record beyond 64 MiB.
  bool next(std::vector<std::string>& fields);

  // Offset of the first byte after the last record, its line end included.
  int64_t position() const { return position_; }
  // Whether the last record had a line end.
  bool was_terminated() const { return was_terminated_; }
  int64_t line() const { return line_; }  // on which the last record began, from 1

 private:
  int get();
  bool read_record(std::vector<std::string>& fields);
  void read_quoted(std::string& field);

  std::filesystem::path path_;
  std::ifstream file_;
  int64_t position_ = 0;
  int64_t line_ = 0;
  int64_t next_line_ = 1;
  bool was_terminated_ = true;
};

// A field as CSV has it: quoted where it must be.
std::string csv_field(std::string_view text);

}  // namespace prefusion::data
