#include "core/zip_archive.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace prefusion {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kCentralHeader = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kEnd64Locator = 0x07064b50;
constexpr size_t kLocalHeaderBytes = 30;
constexpr size_t kCentralHeaderBytes = 46;
constexpr size_t kEndBytes = 22;
constexpr size_t kEnd64Bytes = 56;
constexpr size_t kEnd64LocatorBytes = 20;
constexpr size_t kMaxCommentBytes = 65535;
constexpr uint16_t kExtra64 = 1;
// Deflate makes at most 1032 bytes of one; a size beyond that is a lie that would cost memory to find out.
constexpr size_t kMaxInflation = 1032;

// Little-endian numbers of a byte range; reading past its end is an input error.
class Fields {
 public:
  Fields(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  template <typename T>
  T at(size_t position) const {
    check_input(bytes_.size() >= sizeof(T) && position <= bytes_.size() - sizeof(T), where_,
                ": the zip directory is cut off; the file is truncated or damaged");
    T value;
    std::memcpy(&value, bytes_.data() + position, sizeof(T));  // little endian, as every supported host is
    return value;
  }
  std::string_view range(size_t position, size_t size) const {
    check_input(size <= bytes_.size() && position <= bytes_.size() - size, where_,
                ": the zip directory is cut off; the file is truncated or damaged");
    return bytes_.substr(position, size);
  }

 private:
  std::string_view bytes_;
  const std::string& where_;
};

// Replaces the sizes that do not fit 32 bits by those of the 64-bit extra field, which holds just these, in order.
void apply_extra64(std::string_view extra, std::initializer_list<uint64_t*> values, const std::string& where) {
  constexpr uint64_t kElsewhere = 0xFFFFFFFF;
  const Fields fields(extra, where);
  for (size_t position = 0; position + 4 <= extra.size();) {
    const auto size = fields.at<uint16_t>(position + 2);
    if (fields.at<uint16_t>(position) == kExtra64) {
      const Fields field(fields.range(position + 4, size), where);
      size_t next = 0;
      for (uint64_t* value : values) {
        if (*value != kElsewhere) continue;
        *value = field.at<uint64_t>(next);
        next += 8;
      }
      return;
    }
    position += 4 + size;
  }
}

}  // namespace

struct ZipArchive::Directory {
  uint64_t begin;
  uint64_t size;
  uint64_t count;
};

ZipArchive::ZipArchive(std::shared_ptr<MappedFile> file, std::string where)
    : file_(std::move(file)), where_(std::move(where)) {
  const Directory directory = find_directory();
  read_directory(directory);
  check_overlaps(directory.begin);
}

const ZipArchive::Entry* ZipArchive::find(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second;
}

// The end record is the last thing in the file but for a comment.
ZipArchive::Directory ZipArchive::find_directory() const {
  const std::string_view bytes = file_->bytes();
  const Fields fields(bytes, where_);
  check_input(bytes.size() >= kEndBytes, where_, ": ", bytes.size(), " bytes are too short for a zip file");
  const size_t last = bytes.size() - kEndBytes;
  size_t end = last + 1;
  do {
    check_input(end > 0 && last - (end - 1) <= kMaxCommentBytes, where_,
                ": has no zip directory; the file is truncated or damaged");
    --end;
  } while (fields.at<uint32_t>(end) != kEnd || end + kEndBytes + fields.at<uint16_t>(end + 20) != bytes.size());

  Directory directory{.begin = fields.at<uint32_t>(end + 16),
                      .size = fields.at<uint32_t>(end + 12),
                      .count = fields.at<uint16_t>(end + 10)};
  size_t directory_end = end;
  if (end >= kEnd64LocatorBytes && fields.at<uint32_t>(end - kEnd64LocatorBytes) == kEnd64Locator) {
    const auto end64 = fields.at<uint64_t>(end - kEnd64LocatorBytes + 8);
    const std::string_view record = fields.range(end64, kEnd64Bytes);
    const Fields large(record, where_);
    check_input(large.at<uint32_t>(0) == kEnd64, where_, ": its zip directory does not point to an end record");
    directory = {.begin = large.at<uint64_t>(48), .size = large.at<uint64_t>(40), .count = large.at<uint64_t>(32)};
    directory_end = end64;
  }
  check_input(directory.begin <= directory_end && directory.size <= directory_end - directory.begin, where_,
              ": the zip directory lies outside the file; it is truncated or damaged");
  return directory;
}

void ZipArchive::read_directory(const Directory& directory) {
  const std::string_view bytes = file_->bytes().substr(directory.begin, directory.size);
  const Fields fields(bytes, where_);
  size_t position = 0;
  for (uint64_t i = 0; i < directory.count; ++i) {
    check_input(fields.at<uint32_t>(position) == kCentralHeader, where_, ": entry ", i,
                " of the zip directory is damaged");
    const auto flags = fields.at<uint16_t>(position + 8);
    const auto method = fields.at<uint16_t>(position + 10);
    const auto name_size = fields.at<uint16_t>(position + 28);
    const auto extra_size = fields.at<uint16_t>(position + 30);
    const auto comment_size = fields.at<uint16_t>(position + 32);
    const std::string name(fields.range(position + kCentralHeaderBytes, name_size));
    uint64_t stored_size = fields.at<uint32_t>(position + 20);
    uint64_t size = fields.at<uint32_t>(position + 24);
    uint64_t header = fields.at<uint32_t>(position + 42);
    apply_extra64(fields.range(position + kCentralHeaderBytes + name_size, extra_size), {&size, &stored_size, &header},
                  where_);
    check_input((flags & 1) == 0, where_, ": entry '", name, "' is encrypted, which is not supported");
    check_input(method == 0 || method == 8, where_, ": entry '", name, "' is compressed by method ", method,
                "; only stored and deflated ones are supported");
    Entry entry{.is_deflated = method == 8,
                .crc = fields.at<uint32_t>(position + 16),
                .stored_size = stored_size,
                .size = size};
    locate_data(name, header, entry);
    check_input(entries_.emplace(name, entry).second, where_, ": entry '", name, "' occurs twice");
    position += kCentralHeaderBytes + name_size + extra_size + comment_size;
  }
}

void ZipArchive::locate_data(const std::string& name, size_t header, Entry& entry) const {
  const std::string_view bytes = file_->bytes();
  const Fields fields(bytes, where_);
  check_input(header <= bytes.size() && fields.range(header, kLocalHeaderBytes).size() == kLocalHeaderBytes &&
                  fields.at<uint32_t>(header) == kLocalHeader,
              where_, ": entry '", name, "' does not begin where the zip directory says");
  const size_t name_size = fields.at<uint16_t>(header + 26);
  check_input(fields.range(header + kLocalHeaderBytes, name_size) == name, where_, ": entry '", name,
              "' has another name in front of its data");
  entry.begin = header + kLocalHeaderBytes + name_size + fields.at<uint16_t>(header + 28);
  check_input(entry.begin <= bytes.size() && entry.stored_size <= bytes.size() - entry.begin, where_, ": entry '", name,
              "' of ", entry.stored_size, " bytes reaches beyond the end of the file; it is truncated or damaged");
  const bool has_size =
      entry.is_deflated ? entry.size / kMaxInflation <= entry.stored_size : entry.size == entry.stored_size;
  check_input(has_size, where_, ": entry '", name, "' holds ", entry.stored_size, " bytes, which cannot be ",
              entry.size, " once unpacked");
}

void ZipArchive::check_overlaps(size_t directory_begin) const {
  std::vector<std::pair<size_t, const std::pair<const std::string, Entry>*>> order;
  for (const auto& entry : entries_) order.emplace_back(entry.second.begin, &entry);
  std::sort(order.begin(), order.end());
  size_t end = 0;
  for (const auto& [begin, named] : order) {
    // Between two entries there is room for a header at least.
    check_input(begin - kLocalHeaderBytes >= end, where_, ": entry '", named->first, "' overlaps another one");
    end = begin + named->second.stored_size;
  }
  check_input(end <= directory_begin, where_, ": an entry overlaps the zip directory");
}

void ZipArchive::inflate(const Entry& entry, char* output) const {
  z_stream stream{};
  check_run(inflateInit2(&stream, -MAX_WBITS) == Z_OK, "zlib could not be started");
  constexpr size_t kLargest = std::numeric_limits<uInt>::max();
  size_t read = 0;
  size_t written = 0;
  int status = Z_OK;
  while (status == Z_OK) {
    const size_t input = std::min(entry.stored_size - read, kLargest);
    const size_t room = std::min(entry.size - written, kLargest);
    stream.next_in = reinterpret_cast<Bytef*>(file_->data() + entry.begin + read);
    stream.next_out = reinterpret_cast<Bytef*>(output + written);
    stream.avail_in = static_cast<uInt>(input);
    stream.avail_out = static_cast<uInt>(room);
    status = ::inflate(&stream, Z_NO_FLUSH);
    read += input - stream.avail_in;
    written += room - stream.avail_out;
  }
  inflateEnd(&stream);
  check_input(status == Z_STREAM_END && written == entry.size &&
                  crc32_z(0, reinterpret_cast<const Bytef*>(output), written) == entry.crc,
              where_, ": a compressed entry is damaged");
}

std::string ZipArchive::read(const Entry& entry, size_t max_bytes) const {
  check_input(entry.size <= max_bytes, where_, ": an entry of ", entry.size, " bytes is larger than the ", max_bytes,
              " that are sensible for it");
  if (!entry.is_deflated) return std::string(stored(entry));
  std::string bytes(entry.size, '\0');
  inflate(entry, bytes.data());
  return bytes;
}

}  // namespace prefusion
