#include "data/tar_reader.h"

#include <charconv>
#include <cstring>

#include "core/error.h"

namespace prefusion::data {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kMaxRecordBytes = int64_t{1} << 20;  // of a long name or a pax header

// A number in octal digits, or in base 256 where the first bit is set. -1 when it is neither.
int64_t number_field(const char* field, size_t size) {
  if (static_cast<unsigned char>(field[0]) & 0x80) {
    int64_t value = static_cast<unsigned char>(field[0]) & 0x7f;
    for (size_t i = 1; i < size; ++i) {
      if (value >> 54) return -1;
      value = value << 8 | static_cast<unsigned char>(field[i]);
    }
    return value;
  }
  int64_t value = 0;
  bool has_digit = false;
  for (size_t i = 0; i < size && field[i] != 0; ++i) {
    if (field[i] == ' ') continue;
    if (field[i] < '0' || field[i] > '7' || value >> 58) return -1;
    value = value * 8 + (field[i] - '0');
    has_digit = true;
  }
  return has_digit ? value : 0;
}

std::string text_field(const char* field, size_t size) {
  return std::string(field, strnlen(field, size));
}

bool checksum_fits(const char* block) {
  int64_t sum = 0;
  for (int i = 0; i < kBlock; ++i) sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(block[i]);
  return sum == number_field(block + 148, 8);
}

}  // namespace

TarReader::TarReader(const std::filesystem::path& path) : path_(path), file_(path, std::ios::binary) {
  std::error_code error;
  file_size_ = static_cast<int64_t>(std::filesystem::file_size(path, error));
  check_input(!error && file_.good(), path.string(), ": cannot be opened");
}

// False at the end of the archive: two blocks of zeros, or the end of the file.
bool TarReader::read_header(char (&block)[512]) {
  if (next_header_ >= file_size_) return false;
  check_input(next_header_ + kBlock <= file_size_, path_.string(), ": the archive is cut off at byte ", file_size_);
  file_.clear();
  file_.seekg(next_header_);
  file_.read(block, kBlock);
  check_input(file_.good(), path_.string(), ": cannot be read at byte ", next_header_);
  static const char kZeros[kBlock] = {};
  if (std::memcmp(block, kZeros, kBlock) == 0) return false;
  check_input(checksum_fits(block), path_.string(), ": no tar header at byte ", next_header_,
              "; the archive is damaged (or compressed, which is not read)");
  return true;
}

std::string TarReader::read_body(int64_t size) {
  std::string bytes(static_cast<size_t>(size), '\0');
  file_.clear();
  file_.seekg(body_);
  file_.read(bytes.data(), size);
  check_input(file_.good() || size == 0, path_.string(), ": cannot be read at byte ", body_);
  return bytes;
}

// Records "LENGTH KEY=VALUE\n".
void TarReader::take_pax(const std::string& records) {
  size_t begin = 0;
  while (begin < records.size()) {
    size_t length = 0;
    const char* first = records.data() + begin;
    const auto [end, error] = std::from_chars(first, records.data() + records.size(), length);
    const size_t skipped = static_cast<size_t>(end - first) + 1;
    if (error != std::errc() || length <= skipped || length > records.size() - begin) return;
    const std::string record = records.substr(begin + skipped, length - skipped - 1);
    const size_t equals = record.find('=');
    if (equals != std::string::npos) {
      const std::string value = record.substr(equals + 1);
      if (record.starts_with("path=")) long_name_ = value;
      if (record.starts_with("size=")) std::from_chars(value.data(), value.data() + value.size(), pax_size_);
    }
    begin += length;
  }
}

bool TarReader::next(std::string& name) {
  char block[kBlock];
  while (read_header(block)) {
    const char type = block[156];
    const bool is_note = type == 'L' || type == 'K' || type == 'x' || type == 'g';
    size_ = !is_note && pax_size_ >= 0 ? pax_size_ : number_field(block + 124, 12);
    body_ = next_header_ + kBlock;
    check_input(size_ >= 0 && size_ <= file_size_ - body_, path_.string(), ": the archive is cut off in the member '",
                text_field(block, 100), "'");
    next_header_ = body_ + (size_ + kBlock - 1) / kBlock * kBlock;
    if (is_note) {
      check_input(size_ <= kMaxRecordBytes, path_.string(), ": a header of ", size_, " bytes");
      if (type == 'L') long_name_ = read_body(size_).c_str();
      if (type == 'x') take_pax(read_body(size_));
      continue;
    }
    name = std::move(long_name_);
    if (name.empty()) {
      name = text_field(block, 100);
      const bool is_ustar = std::memcmp(block + 257, "ustar\0", 6) == 0;
      const std::string prefix = is_ustar ? text_field(block + 345, 155) : "";
      if (!prefix.empty()) name = prefix + '/' + name;
    }
    long_name_.clear();
    pax_size_ = -1;
    if (type == '0' || type == 0 || type == '7') return true;
  }
  return false;
}

std::string TarReader::read(int64_t max_bytes) {
  check_input(size_ <= max_bytes, path_.string(), ": a member of ", size_, " bytes, at most ", max_bytes,
              " are expected here");
  return read_body(size_);
}

}  // namespace prefusion::data
