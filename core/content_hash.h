#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

namespace prefusion {

// A 128-bit hash of content, for cache keys: stable across runs and machines, fast (two multiplications per 16 bytes),
// not cryptographic. Every update() is framed by its length, so "ab" + "c" and "a" + "bc" differ.
class ContentHash {
 public:
  ContentHash& update(const void* data, size_t bytes) {
    const auto* position = static_cast<const unsigned char*>(data);
    mix(bytes, kPrimes[0]);
    for (; bytes >= 16; bytes -= 16, position += 16) mix(word(position, 8), word(position + 8, 8));
    if (bytes > 8) {
      mix(word(position, 8), word(position + 8, bytes - 8));
    } else if (bytes > 0) {
      mix(word(position, bytes), 0);
    }
    return *this;
  }
  ContentHash& update(std::string_view text) { return update(text.data(), text.size()); }

  // 32 lower-case hexadecimal digits.
  std::string hex() const {
    const uint64_t first = scramble(a_ + scramble(b_));
    const uint64_t second = scramble(b_ ^ scramble(first));
    std::array<char, 33> text;
    std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(first),
                  static_cast<unsigned long long>(second));
    return text.data();
  }

 private:
  // Odd constants: the golden ratio and roots of primes, as in other multiplicative hashes.
  static constexpr std::array<uint64_t, 3> kPrimes = {0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9};

  // Little-endian machines only, as everything built on LibTorch's wheels is.
  static uint64_t word(const unsigned char* position, size_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, position, bytes);
    return value;
  }
  static uint64_t rotate(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }
  static uint64_t scramble(uint64_t value) {  // the finalizer of SplitMix64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    return value ^ value >> 31;
  }
  // Both steps are invertible in the state: no content can erase what came before.
  void mix(uint64_t first, uint64_t second) {
    a_ = rotate(a_ ^ first * kPrimes[1], 29) * kPrimes[0] + b_;
    b_ = rotate(b_ ^ second * kPrimes[0], 31) * kPrimes[1] + (a_ ^ kPrimes[2]);
  }

  uint64_t a_ = kPrimes[1];
  uint64_t b_ = kPrimes[2];
};

}  // namespace prefusion
