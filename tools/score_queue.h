#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tools/score_batch.h"

namespace prefusion::tools {

// Scores the pictures of many requests on one thread, in batches across requests.
class ScoreQueue {
 public:
  struct Options {
    size_t batch_size = 32;
    size_t capacity = 4096;  // pictures that may wait
    int max_wait_ms = 5;     // a batch that is not full starts once its first picture has waited this long
  };

  ScoreQueue(reward_models::Scorer& scorer, const Options& options);
  ~ScoreQueue();
  ScoreQueue(const ScoreQueue&) = delete;
  ScoreQueue& operator=(const ScoreQueue&) = delete;

  // The rows of the jobs, in their order; an empty future when the queue has no room for all of them. Thread-safe.
  std::future<std::vector<ScoreRow>> submit(std::vector<ScoreJob> jobs);

 private:
  // The jobs of one request and what has become of them.
  struct Request {
    std::vector<ScoreRow> rows;
    size_t num_left = 0;
    bool has_failed = false;
    std::promise<std::vector<ScoreRow>> promise;
  };
  struct Entry {
    ScoreJob job;
    std::shared_ptr<Request> request;
    size_t index = 0;
  };

  void work();
  std::vector<Entry> take_batch();
  void score(std::vector<Entry> batch);

  reward_models::Scorer& scorer_;
  Options options_;
  ScoreLayout layout_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Entry> waiting_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace prefusion::tools
