#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <chrono>
#include <map>
#include <vector>

namespace prefusion {

// What a training step spends its time on.
enum class StepPart {
  kPaused,
  kOther,
  kData,
  kText,
  kVae,
  kSampling,
  kReward,
  kReference,
  kPolicy,
  kBackward,
  kGraph,  // forward and backward passes that are replayed as one launch
  kOptimizer
};

const char* step_part_name(StepPart part);  // "other", "data", ...

// Sorts the time of a thread by parts, from its construction on. On a GPU by events in the stream, without waiting for
// it: what counts is when the device works on a part, not when it was asked to.
class StepClock {
 public:
  // One a thread at a time.
  explicit StepClock(at::Device device);
  ~StepClock();
  StepClock(const StepClock&) = delete;
  StepClock& operator=(const StepClock&) = delete;

  // From pause() to resume() time is nobody's.
  void pause() { enter(StepPart::kPaused); }
  void resume() { enter(StepPart::kOther); }

  // Seconds of each part since the last call. Waits for the device.
  std::map<StepPart, double> take();

 private:
  friend class TimedPart;
  using Clock = std::chrono::steady_clock;

  StepPart enter(StepPart part);  // what was entered before
  void mark();

  at::Device device_;
  StepPart part_ = StepPart::kOther;
  Clock::time_point since_;
  std::map<StepPart, double> seconds_;
  // On a GPU: where parts begin.
  struct Mark {
    StepPart part;
    c10::Event event;
  };
  std::vector<Mark> marks_;
};

// The work of this thread belongs to a part while this lives, if the thread has a clock; an inner part interrupts an
// outer one.
class TimedPart {
 public:
  explicit TimedPart(StepPart part);
  ~TimedPart();
  TimedPart(const TimedPart&) = delete;
  TimedPart& operator=(const TimedPart&) = delete;

 private:
  StepPart outer_;
};

// The clock of this thread marks nothing while this lives: for work that is recorded, not done.
class UntimedWork {
 public:
  UntimedWork();
  ~UntimedWork();
  UntimedWork(const UntimedWork&) = delete;
  UntimedWork& operator=(const UntimedWork&) = delete;

 private:
  StepClock* clock_;
};

}  // namespace prefusion
