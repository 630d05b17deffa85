#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

namespace arrow {
class RecordBatch;
}

namespace prefusion::data {

// Decoded rows that belong together; the batches follow each other.
struct Segment {
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  int64_t num_bytes = 0;
};

// The most recently used segments of all open Parquet files, up to `max_bytes` (at least one stays). Thread-safe.
class SegmentCache {
 public:
  struct Key {
    const void* table = nullptr;
    int row_group = 0;
    int64_t segment = 0;
    auto operator<=>(const Key&) const = default;
  };

  explicit SegmentCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  std::shared_ptr<const Segment> find(const Key& key);
  void insert(const Key& key, std::shared_ptr<const Segment> segment);
  int64_t num_bytes() const;

 private:
  struct Entry {
    Key key;
    std::shared_ptr<const Segment> segment;
  };

  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // most recently used first
  std::map<Key, std::list<Entry>::iterator> positions_;
  int64_t max_bytes_;
  int64_t num_bytes_ = 0;
};

}  // namespace prefusion::data
