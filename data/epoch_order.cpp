#include "data/epoch_order.h"

#include <algorithm>
#include <deque>

#include "core/rng.h"

namespace prefusion::data {
namespace {

struct Segment {
  std::vector<int64_t> groups;
  int64_t num_bytes = 0;
};

using Chunk = std::vector<Segment>;

// Streams of the shuffle: 0 permutes the chunks, 1 the groups with random access, 2 + n the window n.
constexpr uint64_t kChunkStream = 0;
constexpr uint64_t kRandomAccessStream = 1;
constexpr uint64_t kFirstWindowStream = 2;

void shuffle(std::vector<int64_t>& values, const DrawKey& key) {
  CounterRng rng(key, RandomPurpose::kShuffle);
  for (int64_t i = static_cast<int64_t>(values.size()) - 1; i > 0; --i) std::swap(values[i], values[rng.below(i + 1)]);
}

void add_random_access(std::vector<int64_t> groups, const std::vector<OrderedGroup>& places, uint64_t seed,
                       uint64_t epoch, std::vector<Chunk>& chunks) {
  constexpr size_t kGroupsPerChunk = 64;
  shuffle(groups, DrawKey{.seed = seed, .item = kRandomAccessStream, .draw = epoch});
  for (size_t begin = 0; begin < groups.size(); begin += kGroupsPerChunk) {
    Segment segment;
    for (size_t i = begin; i < std::min(groups.size(), begin + kGroupsPerChunk); ++i) {
      segment.groups.push_back(groups[i]);
      segment.num_bytes += places[groups[i]].segment_bytes;
    }
    chunks.push_back({std::move(segment)});
  }
}

std::vector<Chunk> make_chunks(const std::vector<OrderedGroup>& places, uint64_t seed, uint64_t epoch) {
  std::vector<Chunk> chunks;
  std::vector<int64_t> random_access;
  const OrderedGroup* last = nullptr;
  for (size_t i = 0; i < places.size(); ++i) {
    const OrderedGroup& place = places[i];
    if (place.has_random_access) {
      random_access.push_back(static_cast<int64_t>(i));
      continue;
    }
    const bool same_chunk = last && last->source == place.source && last->chunk == place.chunk;
    if (!same_chunk) chunks.emplace_back();
    if (!same_chunk || last->segment != place.segment) {
      chunks.back().push_back(Segment{.num_bytes = place.segment_bytes});
    }
    chunks.back().back().groups.push_back(static_cast<int64_t>(i));
    last = &place;
  }
  add_random_access(std::move(random_access), places, seed, epoch, chunks);
  return chunks;
}

struct OpenChunk {
  const Chunk* chunk;
  size_t next = 0;
};

}  // namespace

std::vector<int64_t> streaming_order(const std::vector<OrderedGroup>& groups, int64_t window_bytes, uint64_t seed,
                                     uint64_t epoch) {
  const std::vector<Chunk> chunks = make_chunks(groups, seed, epoch);
  const std::vector<int64_t> chunk_order =
      random_permutation(static_cast<int64_t>(chunks.size()),
                         DrawKey{.seed = seed, .item = kChunkStream, .draw = epoch}, RandomPurpose::kShuffle);
  std::vector<int64_t> order;
  order.reserve(groups.size());
  std::vector<int64_t> window;
  int64_t bytes_in_window = 0;
  uint64_t window_number = 0;
  const auto close_window = [&] {
    shuffle(window, DrawKey{.seed = seed, .item = kFirstWindowStream + window_number++, .draw = epoch});
    order.insert(order.end(), window.begin(), window.end());
    window.clear();
    bytes_in_window = 0;
  };
  std::deque<OpenChunk> open;
  size_t next_chunk = 0;
  for (;;) {
    while (open.size() < static_cast<size_t>(kOpenChunks) && next_chunk < chunk_order.size()) {
      open.push_back(OpenChunk{.chunk = &chunks[chunk_order[next_chunk++]]});
    }
    if (open.empty()) break;
    OpenChunk current = open.front();
    open.pop_front();
    const Segment& segment = (*current.chunk)[current.next++];
    if (!window.empty() && bytes_in_window + segment.num_bytes > window_bytes) close_window();
    window.insert(window.end(), segment.groups.begin(), segment.groups.end());
    bytes_in_window += segment.num_bytes;
    if (current.next < current.chunk->size()) open.push_back(current);
  }
  close_window();
  return order;
}

}  // namespace prefusion::data
