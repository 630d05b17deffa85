#include "tools/bench_report.h"

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>

namespace prefusion::tools {
namespace {

using Line = std::array<std::string, 6>;

__attribute__((format(printf, 1, 2))) std::string formatted(const char* format, ...) {
  std::array<char, 160> text{};
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text.data(), text.size(), format, arguments);
  va_end(arguments);
  return text.data();
}

// In 10^9 a second, and, where the machine was measured, as a share of what it can do.
std::string rate_with_share(double rate, const std::optional<MachineRates>& machine, double MachineRates::*yardstick) {
  if (rate == 0) return "-";
  const std::string text = formatted("%.3g", rate / 1e9);
  return machine ? text + formatted(" (%.0f %%)", 100 * rate / ((*machine).*yardstick)) : text;
}

double median_of(const BenchReport& report, const std::string& name) {
  const auto row = std::find_if(report.rows.begin(), report.rows.end(), [&](const auto& r) { return r.name == name; });
  return row->timing.median;
}

Line line_of(const BenchReport& report, const BenchRow& row) {
  const Timing& time = row.timing;
  return {row.name,
          formatted("%.3f (%.3f .. %.3f, n %lld)", 1e3 * time.median, 1e3 * time.lowest, 1e3 * time.highest,
                    static_cast<long long>(time.repeats)),
          rate_with_share(time.flops / time.median, report.machine, &MachineRates::flops_per_second),
          rate_with_share(row.bytes / time.median, report.machine, &MachineRates::bytes_per_second),
          row.per_run > 0 ? formatted("%.4g %s/s", row.per_run / time.median, row.unit.c_str()) : "-",
          row.baseline.empty() ? "-" : formatted("%.2f", time.median / median_of(report, row.baseline))};
}

std::string header(const BenchReport& report) {
  std::string text = formatted("%s on %s, %s, %d threads", report.what.c_str(), report.device.c_str(),
                               report.dtype.c_str(), report.threads);
  if (report.machine) {
    text += formatted("; a large matrix product makes %.4g GFLOP/s, a copy %.4g GB/s",
                      report.machine->flops_per_second / 1e9, report.machine->bytes_per_second / 1e9);
  }
  text += '\n';
  return report.model.empty() ? text : "model " + report.model + "\n" + text;
}

}  // namespace

std::string to_table(const BenchReport& report) {
  std::vector<Line> lines = {
      {"", "milliseconds (range)", "GFLOP/s (of product)", "GB/s (of copy)", "rate", "of baseline"}};
  for (const BenchRow& row : report.rows) lines.push_back(line_of(report, row));
  std::string text = header(report);
  for (const Line& line : lines) {
    for (size_t column = 0; column < line.size(); ++column) {
      size_t width = 0;
      for (const Line& other : lines) width = std::max(width, other[column].size());
      text += line[column];
      if (column + 1 < line.size()) text += std::string(width - line[column].size() + 2, ' ');
    }
    text += '\n';
  }
  return text + formatted("peak memory %.3f GB\n", report.peak_memory_bytes / 1e9);
}

Json to_json(const BenchReport& report) {
  Json rows = Json::array();
  for (const BenchRow& row : report.rows) {
    const Timing& time = row.timing;
    Json object = {{"name", row.name},
                   {"seconds", time.median},
                   {"seconds_lowest", time.lowest},
                   {"seconds_highest", time.highest},
                   {"repeats", time.repeats},
                   {"flops", time.flops}};
    if (row.bytes > 0) object["bytes"] = row.bytes;
    if (row.per_run > 0) object[row.unit + "_per_second"] = row.per_run / time.median;
    if (!row.baseline.empty()) object["baseline"] = row.baseline;
    rows.push_back(std::move(object));
  }
  Json json = {{"what", report.what},    {"model", report.model},     {"device", report.device},
               {"dtype", report.dtype},  {"threads", report.threads}, {"peak_memory_bytes", report.peak_memory_bytes},
               {"rows", std::move(rows)}};
  if (report.machine) {
    json["matmul_flops_per_second"] = report.machine->flops_per_second;
    json["copy_bytes_per_second"] = report.machine->bytes_per_second;
  }
  return json;
}

}  // namespace prefusion::tools
