#include "tools/score_queue.h"

#include <chrono>

namespace prefusion::tools {

ScoreQueue::ScoreQueue(reward_models::Scorer& scorer, const Options& options)
    : scorer_(scorer), options_(options), layout_(score_layout(scorer, /*details=*/false)) {
  thread_ = std::thread([this] { work(); });
}

// What was taken is scored first.
ScoreQueue::~ScoreQueue() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  arrived_.notify_all();
  thread_.join();
}

std::future<std::vector<ScoreRow>> ScoreQueue::submit(std::vector<ScoreJob> jobs) {
  auto request = std::make_shared<Request>();
  request->rows.resize(jobs.size());
  request->num_left = jobs.size();
  std::future<std::vector<ScoreRow>> rows = request->promise.get_future();
  if (jobs.empty()) {
    request->promise.set_value({});
    return rows;
  }
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() + jobs.size() > options_.capacity) return {};
    for (size_t i = 0; i < jobs.size(); ++i) waiting_.push_back({std::move(jobs[i]), request, i});
  }
  arrived_.notify_one();
  return rows;
}

std::vector<ScoreQueue::Entry> ScoreQueue::take_batch() {
  std::unique_lock lock(mutex_);
  arrived_.wait(lock, [this] { return is_stopping_ || !waiting_.empty(); });
  arrived_.wait_for(lock, std::chrono::milliseconds(options_.max_wait_ms),
                    [this] { return is_stopping_ || waiting_.size() >= options_.batch_size; });
  std::vector<Entry> batch;
  while (!waiting_.empty() && batch.size() < options_.batch_size) {
    batch.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  return batch;
}

void ScoreQueue::score(std::vector<Entry> batch) {
  std::vector<ScoreJob> jobs;
  for (Entry& entry : batch) jobs.push_back(std::move(entry.job));
  std::vector<ScoreRow> rows;
  std::exception_ptr failure;
  try {
    rows = score_jobs(scorer_, std::move(jobs), layout_);
  } catch (...) {
    failure = std::current_exception();
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    Request& request = *batch[i].request;
    --request.num_left;
    if (request.has_failed) continue;
    if (failure) {
      request.has_failed = true;
      request.promise.set_exception(failure);
      continue;
    }
    request.rows[batch[i].index] = std::move(rows[i]);
    if (request.num_left == 0) request.promise.set_value(std::move(request.rows));
  }
}

void ScoreQueue::work() {
  for (;;) {
    std::vector<Entry> batch = take_batch();
    if (batch.empty()) return;  // stopping, and nothing is left
    score(std::move(batch));
  }
}

}  // namespace prefusion::tools
