#include "core/content_hash.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <vector>

#include "core/error.h"

namespace prefusion {
namespace {

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

void store_big_endian(uint64_t value, int num_bytes, uint8_t* out) {
  for (int i = 0; i < num_bytes; ++i) out[i] = static_cast<uint8_t>(value >> (8 * (num_bytes - 1 - i)));
}

}  // namespace

std::string ContentHash::hex() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

ContentHasher::ContentHasher()
    : state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {}

ContentHasher& ContentHasher::add(std::string_view field) {
  add(static_cast<uint64_t>(field.size()));
  update(reinterpret_cast<const uint8_t*>(field.data()), field.size());
  return *this;
}

ContentHasher& ContentHasher::add(uint64_t number) {
  uint8_t encoded[8];
  store_big_endian(number, 8, encoded);
  update(encoded, sizeof encoded);
  return *this;
}

ContentHash ContentHasher::finish() {
  const uint64_t num_bits = total_ * 8;
  const uint8_t padding[64] = {0x80};
  update(padding, buffered_ < 56 ? 56 - buffered_ : 120 - buffered_);
  uint8_t length[8];
  store_big_endian(num_bits, 8, length);
  update(length, sizeof length);
  ContentHash hash;
  for (int word = 0; word < 4; ++word) store_big_endian(state_[word], 4, hash.bytes.data() + 4 * word);
  return hash;
}

void ContentHasher::update(const uint8_t* data, size_t size) {
  total_ += size;
  while (size > 0) {
    if (buffered_ == 0 && size >= buffer_.size()) {
      compress(data);
      data += buffer_.size();
      size -= buffer_.size();
      continue;
    }
    const size_t count = std::min(size, buffer_.size() - buffered_);
    std::memcpy(buffer_.data() + buffered_, data, count);
    buffered_ += count;
    data += count;
    size -= count;
    if (buffered_ == buffer_.size()) {
      compress(buffer_.data());
      buffered_ = 0;
    }
  }
}

void ContentHasher::compress(const uint8_t* block) {
  uint32_t w[64];
  for (int i = 0; i < 16; ++i) {
    w[i] = uint32_t{block[4 * i]} << 24 | uint32_t{block[4 * i + 1]} << 16 | uint32_t{block[4 * i + 2]} << 8 |
           uint32_t{block[4 * i + 3]};
  }
  for (int i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (int i = 0; i < 64; ++i) {
    const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRoundConstants[i] + w[i];
    const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const uint32_t added[8] = {a, b, c, d, e, f, g, h};
  for (int i = 0; i < 8; ++i) state_[i] += added[i];
}

ContentHash hash_content(std::string_view content) {
  return ContentHasher().add(content).finish();
}

ContentHash hash_file(const std::filesystem::path& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  check_input(!error && file.good(), path.string(), ": cannot be opened");
  ContentHasher hasher;
  hasher.add(static_cast<uint64_t>(size));
  std::vector<char> piece(size_t{1} << 20);
  while (file.read(piece.data(), static_cast<std::streamsize>(piece.size())), file.gcount() > 0) {
    hasher.add(std::string_view(piece.data(), static_cast<size_t>(file.gcount())));
  }
  check_input(file.eof(), path.string(), ": cannot be read");
  return hasher.finish();
}

}  // namespace prefusion
