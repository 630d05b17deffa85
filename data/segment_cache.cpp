#include "data/segment_cache.h"

namespace prefusion::data {

std::shared_ptr<const Segment> SegmentCache::find(const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto found = positions_.find(key);
  if (found == positions_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->segment;
}

void SegmentCache::insert(const Key& key, std::shared_ptr<const Segment> segment) {
  const std::lock_guard lock(mutex_);
  if (positions_.contains(key)) return;
  num_bytes_ += segment->num_bytes;
  entries_.push_front(Entry{.key = key, .segment = std::move(segment)});
  positions_[key] = entries_.begin();
  while (num_bytes_ > max_bytes_ && entries_.size() > 1) {
    num_bytes_ -= entries_.back().segment->num_bytes;
    positions_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

int64_t SegmentCache::num_bytes() const {
  const std::lock_guard lock(mutex_);
  return num_bytes_;
}

}  // namespace prefusion::data
