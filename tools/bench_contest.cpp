#include "tools/bench_contest.h"

#include <algorithm>

namespace prefusion::tools {

bool is_wanted(const std::string& name, const BenchOptions& options) {
  return options.only.empty() || std::any_of(options.only.begin(), options.only.end(), [&](const std::string& text) {
           return name.find(text) != std::string::npos;
         });
}

void add_contest(std::vector<BenchRow>& rows, const Contest& contest, const BenchOptions& options) {
  if (!is_wanted(contest.name, options)) return;
  const std::string baseline = contest.name + ", ATen";
  rows.push_back(
      {.name = baseline, .timing = time_runs(contest.theirs, options.device, options.repeats), .bytes = contest.bytes});
  rows.push_back({.name = contest.name,
                  .timing = time_runs(contest.ours, options.device, options.repeats),
                  .bytes = contest.bytes,
                  .baseline = baseline});
}

}  // namespace prefusion::tools
