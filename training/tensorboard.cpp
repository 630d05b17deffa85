#include "training/tensorboard.h"

#include <array>
#include <chrono>
#include <cstring>

#include "core/error.h"

namespace prefusion::training {
namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}

uint32_t masked_crc(const std::string& bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

template <typename T>
std::string little_endian(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

// Protobuf fields by wire type: 0 varint, 1 fixed64, 2 length-delimited, 5 fixed32.
std::string field_tag(int number, int wire_type) {
  return varint(static_cast<uint64_t>(number) << 3 | wire_type);
}
std::string bytes_field(int number, const std::string& bytes) {
  return field_tag(number, 2) + varint(bytes.size()) + bytes;
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

uint32_t crc32c(const std::string& bytes) {
  static constexpr auto kTable = make_crc_table();
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(c)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder) {
  path_ = folder / concat("events.out.tfevents.", static_cast<int64_t>(wall_time()), ".prefusion");
  file_ = std::fopen(path_.c_str(), "ab");
  check_run(file_ != nullptr, path_.string(), ": cannot be written (", std::strerror(errno), ")");
  // Event.wall_time = 1, Event.file_version = 3
  write_record(field_tag(1, 1) + little_endian(wall_time()) + bytes_field(3, "brain.Event:2"));
}

TensorBoardWriter::~TensorBoardWriter() {
  if (file_) std::fclose(file_);
}

void TensorBoardWriter::write(int64_t step, const std::map<std::string, double>& scalars) {
  std::string summary;
  for (const auto& [name, value] : scalars) {
    // Summary.Value: tag = 1, simple_value = 2
    const std::string entry = bytes_field(1, name) + field_tag(2, 5) + little_endian(static_cast<float>(value));
    summary += bytes_field(1, entry);
  }
  // Event: wall_time = 1, step = 2, summary = 5
  write_record(field_tag(1, 1) + little_endian(wall_time()) + field_tag(2, 0) + varint(static_cast<uint64_t>(step)) +
               bytes_field(5, summary));
}

void TensorBoardWriter::write_record(const std::string& payload) {
  const std::string length = little_endian(static_cast<uint64_t>(payload.size()));
  const std::string record = length + little_endian(masked_crc(length)) + payload + little_endian(masked_crc(payload));
  const bool written = std::fwrite(record.data(), 1, record.size(), file_) == record.size() && std::fflush(file_) == 0;
  check_run(written, path_.string(), ": writing failed (", std::strerror(errno), ")");
}

}  // namespace prefusion::training
