#include "core/step_clock.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "core/error.h"

namespace prefusion {
namespace {

void work(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

TEST(StepClock, InnerPartsInterruptOuterOnesAndNothingIsLost) {
  const auto began = std::chrono::steady_clock::now();
  StepClock clock(at::kCPU);
  {
    const TimedPart policy(StepPart::kPolicy);
    work(20);
    {
      const TimedPart reference(StepPart::kReference);
      work(10);
    }
    work(20);
  }
  work(5);
  const auto parts = clock.take();
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  EXPECT_GE(parts.at(StepPart::kPolicy), 0.040);
  EXPECT_GE(parts.at(StepPart::kReference), 0.010);
  EXPECT_GE(parts.at(StepPart::kOther), 0.005);
  double sum = 0;
  for (const auto& [part, seconds] : parts) sum += seconds;
  EXPECT_LE(sum, elapsed);
  EXPECT_GE(sum, 0.055);
}

TEST(StepClock, TakingBeginsAnew) {
  const auto began = std::chrono::steady_clock::now();
  StepClock clock(at::kCPU);
  const TimedPart policy(StepPart::kPolicy);
  work(20);
  const double first = clock.take().at(StepPart::kPolicy);
  const auto parts = clock.take();
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  EXPECT_GE(first, 0.020);
  EXPECT_LE(first + parts.at(StepPart::kPolicy), elapsed) << "what was taken is counted again";
  EXPECT_EQ(parts.count(StepPart::kOther), 0U);
}

TEST(StepClock, PausesAreNobodysTime) {
  StepClock clock(at::kCPU);
  clock.pause();
  work(20);
  EXPECT_LE(clock.take().size(), 1U) << "the moment before the pause";
  work(20);
  EXPECT_TRUE(clock.take().empty());
  clock.resume();
  work(10);
  EXPECT_GE(clock.take().at(StepPart::kOther), 0.010);
}

TEST(StepClock, PartsWithoutAClockAreNothing) {
  const TimedPart policy(StepPart::kPolicy);
  {
    StepClock clock(at::kCPU);
    const auto make_another = [] { const StepClock another(at::kCPU); };
    EXPECT_THROW(make_another(), Error) << "one a thread";
    std::thread(make_another).join();
  }
  EXPECT_STREQ(step_part_name(StepPart::kBackward), "backward");
}

}  // namespace
}  // namespace prefusion
