#include "tools/score_pipeline.h"

#include <chrono>
#include <latch>

#include "core/error.h"
#include "core/interrupt.h"

namespace prefusion::tools {

ScorePipeline::ScorePipeline(std::function<bool(data::ScoreItem&)> next, const reward_models::Scorer& scorer,
                             int num_workers, size_t capacity)
    : next_(std::move(next)), scorer_(scorer), capacity_(capacity) {
  threads_.emplace_back([this] { read_items(); });
  std::latch started(num_workers);  // scoring begins with the number of threads that it keeps
  for (int i = 0; i < num_workers; ++i) {
    threads_.emplace_back([this, &started] {
      use_one_thread_here();
      started.count_down();
      work();
    });
  }
  started.wait();
}

ScorePipeline::~ScorePipeline() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  room_.notify_all();
  arrived_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ScorePipeline::read_items() {
  try {
    for (;;) {
      auto slot = std::make_shared<Slot>();
      {
        std::unique_lock lock(mutex_);
        room_.wait(lock, [this] { return is_stopping_ || in_order_.size() < capacity_; });
        if (is_stopping_) return;
      }
      if (!next_(slot->item)) break;
      {
        const std::lock_guard lock(mutex_);
        in_order_.push_back(slot);
        waiting_.push_back(std::move(slot));
      }
      arrived_.notify_one();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
  }
  {
    const std::lock_guard lock(mutex_);
    has_ended_ = true;
  }
  arrived_.notify_all();
  ready_.notify_all();
}

void ScorePipeline::prepare(Slot& slot) const {
  ScoreJob& job = slot.job;
  job.image = slot.item.image;
  job.prompt = slot.item.prompt;
  job.row = slot.item.row;
  job.item = slot.item.item;
  job.problem = slot.item.problem;
  if (!job.problem.empty()) return;
  std::string encoded;
  try {
    encoded = data::read_picture(slot.item);
  } catch (const Error& error) {
    job.problem = error.what();
    return;
  }
  prepare_job(encoded, scorer_, {}, job);
}

void ScorePipeline::work() {
  for (;;) {
    std::shared_ptr<Slot> slot;
    {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return is_stopping_ || has_ended_ || !waiting_.empty(); });
      if (is_stopping_ || waiting_.empty()) return;
      slot = std::move(waiting_.front());
      waiting_.pop_front();
    }
    try {
      prepare(*slot);
    } catch (const std::exception& error) {  // out of memory for one picture is that picture's problem
      slot->job.problem = error.what();
    }
    {
      const std::lock_guard lock(mutex_);
      slot->is_ready = true;
    }
    ready_.notify_all();
  }
}

std::vector<ScoreJob> ScorePipeline::take(size_t count) {
  std::vector<ScoreJob> jobs;
  std::unique_lock lock(mutex_);
  while (jobs.size() < count) {
    const auto can_go_on = [this] { return in_order_.empty() ? has_ended_ : in_order_.front()->is_ready; };
    // A signal does not wake the condition, so that it is looked for now and then.
    while (!ready_.wait_for(lock, std::chrono::milliseconds(100), can_go_on)) throw_if_interrupted();
    if (in_order_.empty()) {
      if (failure_) std::rethrow_exception(failure_);
      break;
    }
    jobs.push_back(std::move(in_order_.front()->job));
    in_order_.pop_front();
    room_.notify_one();
  }
  return jobs;
}

}  // namespace prefusion::tools
