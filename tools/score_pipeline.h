#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "data/score_source.h"
#include "tools/score_batch.h"

namespace prefusion::tools {

// Reads items in order on one thread, decodes and prepares their pictures on others, and hands them out in order.
// At most `capacity` are on their way.
class ScorePipeline {
 public:
  // `next` gives the items; false at the end. It is called from one thread.
  ScorePipeline(std::function<bool(data::ScoreItem&)> next, const reward_models::Scorer& scorer, int num_workers,
                size_t capacity);
  ~ScorePipeline();
  ScorePipeline(const ScorePipeline&) = delete;
  ScorePipeline& operator=(const ScorePipeline&) = delete;

  // The next `count` jobs, fewer at the end. Throws what `next` threw, and Interrupted once a signal has arrived.
  std::vector<ScoreJob> take(size_t count);

 private:
  struct Slot {
    data::ScoreItem item;
    ScoreJob job;
    bool is_ready = false;
  };

  void read_items();
  void work();
  void prepare(Slot& slot) const;

  std::function<bool(data::ScoreItem&)> next_;
  const reward_models::Scorer& scorer_;
  size_t capacity_;
  std::mutex mutex_;
  std::condition_variable room_;     // a slot is free
  std::condition_variable arrived_;  // an item waits for a worker
  std::condition_variable ready_;    // a slot is ready, or there are no more
  std::deque<std::shared_ptr<Slot>> in_order_;
  std::deque<std::shared_ptr<Slot>> waiting_;
  std::exception_ptr failure_;
  bool has_ended_ = false;
  bool is_stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace prefusion::tools
