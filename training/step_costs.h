#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "core/flop_counter.h"
#include "core/step_clock.h"
#include "training/metrics_log.h"

namespace prefusion::training {

// What the optimizer steps of a run cost: their time by parts, and operations a second of the steps that are counted.
class StepCosts {
 public:
  StepCosts(at::Device device, at::ScalarType dtype);

  // A step begins, of which operations are counted or not (counting costs a microsecond an operation), and ends.
  void begin(bool counts);
  void end();

  // Adds to the metrics of the steps since the last call: seconds_per_step, time/PART (seconds a step, those that took
  // any), tflops, by the operations of the last counted step, and, on a known GPU, mfu: its share of what the data
  // sheet says. Returns the larger parts for the progress line: "backward 48 %, policy 31 %".
  std::string add_to(Metrics& metrics);

 private:
  StepClock clock_;
  double peak_flops_;
  std::unique_ptr<FlopCounter> counter_;
  std::chrono::steady_clock::time_point began_;
  double seconds_ = 0, counted_flops_ = 0;
  int64_t num_steps_ = 0;
};

}  // namespace prefusion::training
