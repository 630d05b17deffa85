#pragma once

#include <cmath>
#include <cstdint>

// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011):
// any element of a stream is computed from its index alone, so noise need not be stored and resuming needs no state.
// Plain functions for both host and device: a .cu file includes this header as it is.
#ifdef __CUDACC__
#define PREFUSION_HOST_DEVICE __host__ __device__
#else
#define PREFUSION_HOST_DEVICE
#endif

namespace prefusion {

struct Uint4 {
  uint32_t x, y, z, w;
};

// The block of 128 random bits number `counter` of stream (key, stream).
PREFUSION_HOST_DEVICE inline Uint4 philox4x32(uint64_t key, uint64_t stream, uint64_t counter) {
  Uint4 c{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), static_cast<uint32_t>(stream),
          static_cast<uint32_t>(stream >> 32)};
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c.x;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c.z;
    c = Uint4{static_cast<uint32_t>(product1 >> 32) ^ c.y ^ k0, static_cast<uint32_t>(product1),
              static_cast<uint32_t>(product0 >> 32) ^ c.w ^ k1, static_cast<uint32_t>(product0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// 32 random bits to a float in (0, 1): never 0, so that its logarithm is finite; never 1. 23 bits and a half are all
// that a float holds exactly: a 24th would round the largest value up to 1.
PREFUSION_HOST_DEVICE inline float uniform_open(uint32_t bits) {
  return (static_cast<float>(bits >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

struct Normal4 {
  float x, y, z, w;
};

// Four standard normals from one block (Box-Muller on two pairs).
PREFUSION_HOST_DEVICE inline Normal4 philox_normal4(uint64_t key, uint64_t stream, uint64_t counter) {
  const Uint4 bits = philox4x32(key, stream, counter);
  constexpr float kTwoPi = 6.283185307179586f;
  const float radius0 = std::sqrt(-2.0f * std::log(uniform_open(bits.x)));
  const float radius1 = std::sqrt(-2.0f * std::log(uniform_open(bits.z)));
  const float angle0 = kTwoPi * uniform_open(bits.y);
  const float angle1 = kTwoPi * uniform_open(bits.w);
  return Normal4{radius0 * std::cos(angle0), radius0 * std::sin(angle0), radius1 * std::cos(angle1),
                 radius1 * std::sin(angle1)};
}

}  // namespace prefusion
