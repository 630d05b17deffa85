#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

namespace prefusion {

// 128 bits that stand for some content: the first half of its SHA-256. Equal hashes mean equal content for every
// practical purpose, also for content chosen by somebody else.
struct ContentHash {
  std::array<uint8_t, 16> bytes{};

  bool operator==(const ContentHash&) const = default;
  auto operator<=>(const ContentHash&) const = default;
  std::string hex() const;
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
};

// For unordered containers: any eight bytes of a cryptographic hash are one.
struct ContentHashHasher {
  size_t operator()(const ContentHash& hash) const {
    size_t value;
    std::memcpy(&value, hash.bytes.data(), sizeof value);
    return value;
  }
};

// SHA-256 (FIPS 180-4) over a sequence of fields. Each field is preceded by its length, so that ("ab", "c") and
// ("a", "bc") differ.
class ContentHasher {
 public:
  ContentHasher();
  ContentHasher& add(std::string_view field);
  ContentHasher& add(uint64_t number);
  ContentHash finish();

 private:
  void update(const uint8_t* data, size_t size);
  void compress(const uint8_t* block);

  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> buffer_{};
  size_t buffered_ = 0;
  uint64_t total_ = 0;
};

// Hash of one field.
ContentHash hash_content(std::string_view content);

// Hash of a file's bytes, read in pieces. Input error when it cannot be read.
ContentHash hash_file(const std::filesystem::path& path);

}  // namespace prefusion
