#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace prefusion::tools {

// How often something is timed: `warmup` runs that do not count, then until both limits are passed.
struct Repeats {
  int64_t warmup = 1;
  int64_t at_least = 3;
  double seconds = 1.0;
};

// Seconds of one run: median and range of the repeats, and the operations of one (core/flop_counter.h).
struct Timing {
  double median = 0, lowest = 0, highest = 0;
  int64_t repeats = 0;
  double flops = 0;
};

// Times `run`, waiting for the device at both ends.
Timing time_runs(const std::function<void()>& run, at::Device device, const Repeats& repeats);

// What the machine can do, measured: the yardsticks that shares refer to.
struct MachineRates {
  double flops_per_second = 0;  // of a large matrix product in that dtype
  double bytes_per_second = 0;  // read and written by a copy that no cache holds
};

MachineRates measure_machine(at::Device device, at::ScalarType dtype);

}  // namespace prefusion::tools
