#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/bench_parts.h"
#include "tools/bench_report.h"

namespace prefusion::tools {

// Timed beside the composition of ATen operations that gives the same numbers.
struct Contest {
  std::string name;
  std::function<void()> ours, theirs;
  double bytes = 0;  // that any implementation moves
};

// Whether `--only` names it.
bool is_wanted(const std::string& name, const BenchOptions& options);

// Two rows of a contest that is wanted: ATen's, and ours beside it.
void add_contest(std::vector<BenchRow>& rows, const Contest& contest, const BenchOptions& options);

// Contests of the optimizers' kernels (bench_optimizers.cpp).
void bench_adamw(std::vector<BenchRow>& rows, int64_t layers, int64_t count, const BenchOptions& options);
void bench_adamw_8bit(std::vector<BenchRow>& rows, int64_t count, const BenchOptions& options);

}  // namespace prefusion::tools
