#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "tools/bench_clock.h"

namespace prefusion::tools {

// One thing that was timed.
struct BenchRow {
  std::string name;
  Timing timing;
  double bytes = 0;           // that must be read and written at least; 0: not stated
  double per_run = 0;         // what a run makes, for a rate: pictures, groups; 0: no rate
  std::string unit;           // of these: "pictures"
  std::string baseline = {};  // name of an earlier row that does the same in another way; its time is divided by this
};

struct BenchReport {
  std::string what;  // "forward"
  std::string device, dtype, model;
  int threads = 0;
  std::optional<MachineRates> machine;  // where they were wanted
  std::vector<BenchRow> rows;
  double peak_memory_bytes = 0;
};

// A table for people, and the same with everything in SI units.
std::string to_table(const BenchReport& report);
Json to_json(const BenchReport& report);

}  // namespace prefusion::tools
