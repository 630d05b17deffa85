#pragma once

#include <cstdint>
#include <vector>

namespace prefusion::data {

// Where a group lies, as PreferenceSource::Place says it.
struct OrderedGroup {
  uint32_t source = 0;
  int64_t chunk = 0;
  int64_t segment = 0;
  int64_t segment_bytes = 0;
  bool has_random_access = false;
};

// Chunks read side by side.
inline constexpr int64_t kOpenChunks = 8;

// A shuffle for data that is streamed: the chunks (row groups) are permuted; kOpenChunks of them are read side by side,
// each segment after segment; the groups of every window of about `window_bytes` are permuted. Groups with random
// access are permuted as a whole first, then take part as chunks of 64. A function of its arguments alone.
std::vector<int64_t> streaming_order(const std::vector<OrderedGroup>& groups, int64_t window_bytes, uint64_t seed,
                                     uint64_t epoch);

}  // namespace prefusion::data
