#include "core/step_clock.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

#include "core/error.h"

namespace prefusion {
namespace {

thread_local StepClock* current = nullptr;

}  // namespace

const char* step_part_name(StepPart part) {
  switch (part) {
    case StepPart::kData: return "data";
    case StepPart::kText: return "text";
    case StepPart::kVae: return "vae";
    case StepPart::kSampling: return "sampling";
    case StepPart::kReward: return "reward";
    case StepPart::kReference: return "reference";
    case StepPart::kPolicy: return "policy";
    case StepPart::kBackward: return "backward";
    case StepPart::kGraph: return "graph";
    case StepPart::kOptimizer: return "optimizer";
    case StepPart::kPaused: return "paused";
    case StepPart::kOther: break;
  }
  return "other";
}

StepClock::StepClock(at::Device device) : device_(device), since_(Clock::now()) {
  check_run(current == nullptr, "the thread has a step clock already");
  if (!device_.is_cpu()) mark();
  current = this;
}

StepClock::~StepClock() {
  current = nullptr;
}

void StepClock::mark() {
  c10::Event event(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
  event.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  marks_.push_back({part_, std::move(event)});
}

StepPart StepClock::enter(StepPart part) {
  const StepPart outer = part_;
  if (device_.is_cpu()) {
    const auto now = Clock::now();
    seconds_[part_] += std::chrono::duration<double>(now - since_).count();
    since_ = now;
    part_ = part;
  } else {
    part_ = part;
    mark();
  }
  return outer;
}

std::map<StepPart, double> StepClock::take() {
  enter(part_);
  if (!device_.is_cpu()) {
    marks_.back().event.synchronize();
    for (size_t i = 0; i + 1 < marks_.size(); ++i) {
      seconds_[marks_[i].part] += marks_[i].event.elapsedTime(marks_[i + 1].event) / 1e3;
    }
    marks_.erase(marks_.begin(), marks_.end() - 1);
  }
  seconds_.erase(StepPart::kPaused);
  return std::exchange(seconds_, {});
}

TimedPart::TimedPart(StepPart part) : outer_(current ? current->enter(part) : StepPart::kOther) {}

TimedPart::~TimedPart() {
  if (current) current->enter(outer_);
}

UntimedWork::UntimedWork() : clock_(std::exchange(current, nullptr)) {}

UntimedWork::~UntimedWork() {
  current = clock_;
}

}  // namespace prefusion
